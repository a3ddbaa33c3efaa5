using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>What is made of DeepSeek-V2's and -V3's files, and what of them is refused.</summary>
public sealed class LatentPlanTests
{
    [Theory]
    [InlineData("deepseek_v2")]
    [InlineData("deepseek_v3")]
    public void The_cache_holds_the_latent_and_one_rotated_key(string name)
    {
        ModelPlan plan = Read(Make(name));
        Assert.Equal(name, plan.Family);
        Assert.All(plan.Layers.KvSlots, static slot => Assert.Equal((new KvSlotPlan(1, 24, LatentDim: 16), 16, 24), (slot, slot.ValueDim, slot.ElementsPerToken)));
        AttentionPlan attention = plan.Layers.Blocks[1].Attention!;
        Assert.Equal((4, 1, 24, 16, 16, 120), (attention.Heads, attention.KvHeads, attention.HeadDim, attention.ValueDim, attention.RopeStart, attention.QkvWidth));
        Assert.Equal((float)(1 / Math.Sqrt(20)), attention.Scale);
        Assert.Equal((RopePairing.Adjacent, 8), (attention.Rope!.Pairing, attention.Rope.Dimensions));
        Assert.Equal((1e-6f, 16), (attention.KeyNorm!.Epsilon, attention.KeyNormWidth));
        Assert.Equal(48, attention.Output.Inputs);

        LatentPlan latent = attention.Latent!;
        Assert.Equal((24, 24, 80), (latent.QueryDown!.Outputs, latent.Query.Inputs, latent.Query.Outputs));
        const string up = "model.layers.1.self_attn.kv_b_proj.weight";
        Assert.Equal(new HeadLinearPlan(4, 12, 16, 8, new WeightRef(up, 0, Transposed: true), 24), latent.KeyUp);
        Assert.Equal(new HeadLinearPlan(4, 16, 12, 0, new WeightRef(up, 12), 24), latent.ValueUp);
    }

    [Fact]
    public void Queries_need_not_be_compressed()
    {
        LatentPlan latent = Read(Make("deepseek_v2 lite")).Layers.Blocks[0].Attention!.Latent!;
        Assert.Null(latent.QueryDown);
        Assert.Null(latent.QueryDownNorm);
        Assert.Equal((32, "model.layers.0.self_attn.q_proj.weight"), (latent.Query.Inputs, latent.Query.Parts[0].Weight!.Tensor));
    }

    [Fact]
    public void Yarn_scales_scores_twice()
    {
        AttentionPlan attention = Read(Make("deepseek_v3 yarn, four groups")).Layers.Blocks[0].Attention!;
        double all = 0.1 * 0.6 * Math.Log(40) + 1;
        Assert.Equal((float)(all * all / Math.Sqrt(20)), attention.Scale);
        Assert.Equal((float)((0.1 * Math.Log(40) + 1) / all), attention.Rope!.Magnitude);
        Assert.Equal(RopePairing.Halves, Read(Make("deepseek_v3 halves rotated, large epsilon")).Layers.Blocks[0].Attention!.Rope!.Pairing);
    }

    [Fact]
    public void Values_may_be_wider_than_keys()
    {
        TinyModel model = Make("deepseek_v2", """{"v_head_dim": 20, "qk_nope_head_dim": 4, "kv_lora_rank": 6}""");
        int[] tokens = model.Tokens(9);
        using var harness = new ModelHarness(model.ToCheckpoint(), new Engine.Reference.ReferenceBackend(), pageTokens: 4, maxRows: 32);
        FamiliesAgainstOracleTests.AssertClose(
            new MoeOracle(model).Logits(tokens), harness.Run(tokens, chunk: 4), FamiliesAgainstOracleTests.ReferenceTolerance, model);
    }

    [Fact]
    public void Layers_that_predict_further_tokens_are_left_out()
    {
        TinyModel model = Make("deepseek_v3");
        Assert.True(model.Tensors.ContainsKey("model.layers.3.enorm.weight"));
        Assert.Equal(3, Read(model).Layers.Steps.Length);

        model.AddGain("model.layers.4.enorm.weight", 32);
        Assert.Contains("model.layers.4.enorm.weight", Assert.Throws<EngineException>(() => Read(model)).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Layers_share_attention_only_where_what_the_latent_becomes_is_the_same_too()
    {
        TinyModel model = Make("deepseek_v3");
        foreach (string name in model.Tensors.Keys.Where(static name => name.StartsWith("model.layers.0.self_attn.", StringComparison.Ordinal)).ToArray())
        {
            if (!name.Contains("kv_b_proj", StringComparison.Ordinal))
            {
                model.Tensors[name.Replace(".0.", ".1.", StringComparison.Ordinal)] = model.Tensors[name];
            }
        }
        LayerMap layers = Read(model).Layers;
        Assert.NotSame(layers.Blocks[0].Attention, layers.Blocks[1].Attention);

        const string Up = "self_attn.kv_b_proj.weight";
        model.Tensors[$"model.layers.1.{Up}"] = model.Tensors[$"model.layers.0.{Up}"];
        layers = Read(model).Layers;
        Assert.Same(layers.Blocks[layers.Steps[0].Block].Attention, layers.Blocks[layers.Steps[1].Block].Attention);
    }

    [Fact]
    public void Weights_in_fp8_are_refused()
    {
        TinyModel model = Make("deepseek_v3", """{"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}}""");
        model.AddMatrix("model.layers.0.self_attn.o_proj.weight_scale_inv", 1, 1, 1);
        EngineException error = Assert.Throws<EngineException>(() => Read(model));
        Assert.Equal("model.layers.0.self_attn.o_proj.weight_scale_inv", error.Item);
        Assert.Contains("FP8", error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"kv_lora_rank": null}""", "kv_lora_rank", "missing")]
    [InlineData("""{"v_head_dim": 0}""", "v_head_dim", "found 0")]
    [InlineData("""{"qk_rope_head_dim": 7}""", "", "kv_a_proj_with_mqa")]
    [InlineData("""{"num_attention_heads": 500000000}""", "num_attention_heads", "address")]
    [InlineData("""{"rope_interleave": 1}""", "rope_interleave", "true or false")]
    public void A_configuration_is_refused(string differences, string item, string reason)
    {
        TinyModel model = Make("deepseek_v3");
        MoeModels.Change(model.Config, differences);
        EngineException error = Assert.Throws<EngineException>(() => Read(model));
        Assert.Contains(reason, error.Message, StringComparison.Ordinal);
        Assert.True(item.Length == 0 || error.Item == item, error.Message);
    }

    private static ModelPlan Read(TinyModel model) => ModelPlanReader.Read(model.ToCheckpoint());

    private static TinyModel Make(string name, string differences = "{}") => MoeModels.Make(name, Random.Shared.Next(), differences);
}
