using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Transforms;

namespace Engine.Tests.Transforms;

/// <summary>ParScale models over one backbone, as one checkpoint.</summary>
public sealed class StreamSetsTests
{
    private const string Down = "model.layers.1.mlp.down_proj.weight";

    [Fact]
    public void Sets_are_in_the_order_of_the_parts_over_one_backbone()
    {
        using Checkpoint alone = Open("dyn_p4");
        using Checkpoint combined = StreamSets.Combine([Open("dyn_p4"), Open("dyn_p1"), Open("dyn_p2")]);
        ModelPlan plan = ModelPlanReader.Read(combined), single = ModelPlanReader.Read(alone);
        Assert.Equal([4, 1, 2], plan.Streams!.Sets.Select(static set => set.Count));
        Assert.Equal([8, 0, 8], plan.Streams.Sets.Select(static set => set.PrefixTokens));
        Assert.Equal(PlanTextOfBackbone(single), PlanTextOfBackbone(plan));
        Assert.True(plan.Layers.KvSlots[0].SharedByStreams);
        StreamSetPlan last = plan.Streams.Sets[2];
        Assert.Equal("streams.2/model.layers.1.self_attn.prefix_v", last.Prefixes[1].Values.Tensor);
        Assert.Equal("streams.2/model.aggregate_layer.2.bias", last.Gate!.Out.Parts[0].Bias!.Tensor);
        Assert.Equal(0.1f, last.Gate.Smoothing);
        // What is named is what the part holds.
        using Checkpoint part = Open("dyn_p2");
        Assert.True(combined[last.Prefixes[1].Values.Tensor].ContentEquals(part["model.layers.1.self_attn.prefix_v"]));
        Assert.True(combined[Down].ContentEquals(part[Down]));

        static string PlanTextOfBackbone(ModelPlan plan) => Engine.Tests.Plans.PlanText.Of(plan with { Streams = null });
    }

    [Fact]
    public void A_plain_qwen2_is_the_set_of_one_stream()
    {
        using Checkpoint combined = StreamSets.Combine([Copy("dyn_p1", static config =>
        {
            config["model_type"] = "qwen2";
            config["architectures"] = new JsonArray("Qwen2ForCausalLM");
            config["max_position_embeddings"] = 32768;
            config["rope_theta"] = 1e6;
            config["layer_types"] = new JsonArray("full_attention", "full_attention");
            foreach (string key in (string[])["parscale_n", "parscale_n_tokens", "parscale_attn_smooth"])
            {
                config.Remove(key);
            }
        }), Open("dyn_p2")]);
        ModelPlan plan = ModelPlanReader.Read(combined);
        Assert.Equal(("parscale", 2048), (plan.Family, plan.ContextLength));
        Assert.Equal([1, 2], plan.Streams!.Sets.Select(static set => set.Count));
    }

    [Fact]
    public void Parts_without_streams_share_no_slot()
    {
        using Checkpoint combined = StreamSets.Combine([Open("dyn_p1")]);
        ModelPlan plan = ModelPlanReader.Read(combined);
        Assert.False(plan.Layers.KvSlots[0].SharedByStreams);
        Assert.Equal(1, Assert.Single(plan.Streams!.Sets).Count);
    }

    [Fact]
    public void Models_of_other_families_are_refused()
    {
        static Checkpoint Llama() => Copy("dyn_p1", static config => config["model_type"] = "llama");
        EngineException error = Assert.Throws<EngineException>(static () => StreamSets.Combine([Llama(), Llama()]));
        Assert.Contains("over one backbone; found \"llama\"", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Disposing_the_whole_disposes_the_parts()
    {
        var parts = new Checkpoint[] { new Watched(), new Watched() };
        StreamSets.Combine(parts).Dispose();
        Assert.All(parts, static part => Assert.True(((Watched)part).IsDisposed));
    }

    [Fact]
    public void A_backbone_that_differs_in_one_byte_is_refused_and_nothing_stays_open()
    {
        var watched = new Watched();
        MemoryCheckpoint other = Copy("dyn_p2", static _ => { });
        byte[] bytes = other[Down].Bytes.ToArray();
        bytes[^3] ^= 1;
        other.Add(Down, DType.F32, other[Down].Shape, bytes);
        EngineException error = Assert.Throws<EngineException>(() => StreamSets.Combine([Copy("dyn_p1", static _ => { }), other]));
        Assert.Equal(("dyn_p2", Down), (error.File, error.Item));
        Assert.Contains("do not share a backbone", error.Reason, StringComparison.Ordinal);
        Assert.Throws<EngineException>(() => StreamSets.Combine([watched, Open("dyn_p2")]));
        Assert.True(watched.IsDisposed);
    }

    [Fact]
    public void A_backbone_of_another_shape_or_format_is_refused()
    {
        MemoryCheckpoint other = Copy("dyn_p2", static _ => { });
        other.Add(Down, [32, 64], new float[32 * 64], DType.BF16);
        EngineException error = Assert.Throws<EngineException>(() => StreamSets.Combine([Open("dyn_p1"), other]));
        Assert.Equal(Down, error.Item);
        Assert.Contains("expected F32 [32, 64]", error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_backbone_with_a_tensor_more_is_refused(bool inFirst)
    {
        MemoryCheckpoint more = Copy("dyn_p1", static _ => { });
        more.Add("lm_head.weight", [96, 32], new float[96 * 32]);
        Checkpoint other = Open("dyn_p2");
        EngineException error = Assert.Throws<EngineException>(() => StreamSets.Combine(inFirst ? [more, other] : [other, more]));
        Assert.Equal("lm_head.weight", error.Item);
        Assert.Contains("backbones differ", error.Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("rope_theta", "10000.0")]
    [InlineData("rms_norm_eps", "1e-5")]
    [InlineData("tie_word_embeddings", "false")]
    [InlineData("use_sliding_window", "true")]
    [InlineData("rope_scaling", """{"type": "linear", "factor": 2.0}""")]
    [InlineData("some_new_key", "1")]
    public void A_configuration_that_computes_something_else_is_refused(string key, string value)
    {
        EngineException error = Assert.Throws<EngineException>(() => StreamSets.Combine(
            [Open("dyn_p1"), Copy("dyn_p2", config => config[key] = JsonNode.Parse(value))]));
        Assert.Equal(("dyn_p2", key), (error.File, error.Item));
    }

    [Fact]
    public void Contexts_differ_only_without_scaled_rotations()
    {
        static Checkpoint Part(string name, int context) => Copy(name, config =>
        {
            config["rope_scaling"] = JsonNode.Parse("""{"type": "linear", "factor": 2.0}""");
            config["max_position_embeddings"] = context;
        });
        using Checkpoint same = StreamSets.Combine([Part("dyn_p1", 64), Part("dyn_p2", 64)]);
        EngineException error = Assert.Throws<EngineException>(() => StreamSets.Combine([Part("dyn_p1", 64), Part("dyn_p2", 128)]));
        Assert.Equal("max_position_embeddings", error.Item);
    }

    [Theory]
    [InlineData("parscale_n_tokens", "9", "model.layers.0.self_attn.prefix_k", "expected shape [2, 2, 9, 8]; found [2, 2, 8, 8]")]
    [InlineData("parscale_n", "3", "model.layers.0.self_attn.prefix_k", "expected shape [3, 2, 8, 8]")]
    [InlineData("parscale_n", "0", "parscale_n", "whole number from 1")]
    [InlineData("parscale_n", "\"2\"", "parscale_n", "whole number from 1")]
    [InlineData("parscale_n", "100000000", "parscale_n", "more than this engine")]
    [InlineData("parscale_attn_smooth", "1.5", "parscale_attn_smooth", "from 0 to 1")]
    [InlineData("parscale_attn_smooth", "\"high\"", "parscale_attn_smooth", "finite number")]
    [InlineData("parscale_sets", "[]", "parscale_sets", "array of objects")]
    [InlineData("parscale_sets", "[3]", "parscale_sets[0]", "expected an object")]
    [InlineData("parscale_sets", """[{"parscale_n": -1}]""", "parscale_sets[0].parscale_n", "whole number")]
    [InlineData("parscale_n", "1", "", "not known in a parscale model: model.")]
    [InlineData("parscale_n", "null", "", "not known in a parscale model: model.")]
    public void A_set_that_does_not_fit_its_tensors_is_refused(string key, string value, string item, string reason)
    {
        using MemoryCheckpoint checkpoint = Copy("dyn_p2", config => config[key] = JsonNode.Parse(value));
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
        Assert.Equal(item, error.Item ?? "");
        Assert.Contains(reason, error.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void What_a_configuration_leaves_out_is_the_codes_default()
    {
        using MemoryCheckpoint checkpoint = Copy("p2_tied_f32_n48", static config =>
        {
            config.Remove("parscale_n_tokens");
            config.Remove("parscale_attn_smooth");
        }, "");
        StreamSetPlan set = ModelPlanReader.Read(checkpoint).Streams!.Sets[0];
        Assert.Equal((48, 0.01f), (set.PrefixTokens, set.Gate!.Smoothing));
    }

    [Fact]
    public void A_missing_prefix_is_named()
    {
        using MemoryCheckpoint checkpoint = Copy("dyn_p2", static _ => { }, without: "prefix_v");
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(checkpoint));
        Assert.Contains("missing from this parscale model: model.layers.{0…1}.self_attn.prefix_v", error.Message, StringComparison.Ordinal);
    }

    private static Checkpoint Open(string name) =>
        CheckpointFile.Open(Path.Combine(AppContext.BaseDirectory, "Golden", "parscale", "dynamic", name));

    private static MemoryCheckpoint Copy(string name, Action<JsonObject> change, string folder = "dynamic", string? without = null)
    {
        using Checkpoint golden = CheckpointFile.Open(Path.Combine(AppContext.BaseDirectory, "Golden", "parscale", folder, name));
        var config = (JsonObject)golden.Config.DeepClone();
        change(config);
        var copy = new MemoryCheckpoint(name, config);
        foreach (string tensor in golden.TensorNames.Where(tensor => without is null || !tensor.EndsWith(without, StringComparison.Ordinal)))
        {
            TensorView view = golden[tensor];
            copy.Add(tensor, view.DType, view.Shape, view.Bytes);
        }
        return copy;
    }

    /// <summary>Has nothing, and knows whether it was disposed.</summary>
    private sealed class Watched : Checkpoint
    {
        public bool IsDisposed { get; private set; }

        public override string Path => "watched";

        public override IReadOnlyCollection<string> TensorNames => [];

        public override JsonObject Config { get; } = new() { ["model_type"] = "qwen2" };

        public override bool TryGetTensor(string name, [System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out TensorView? tensor)
        {
            tensor = null;
            return false;
        }

        protected override void Dispose(bool disposing)
        {
            IsDisposed = true;
            base.Dispose(disposing);
        }
    }
}
