using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>What holds of mixtures of experts whatever the numbers, asked of the oracle itself.</summary>
public sealed class MoeOracleTests
{
    /// <summary>Doubles, and sums in another order.</summary>
    private const double Tolerance = 1e-9;

    public static TheoryData<string> Models => [.. MoeModels.Names];

    /// <summary>The weights of a token's experts sum to one, so that equal experts are one expert.</summary>
    public static TheoryData<string> Normalised =>
    [
        "mixtral", "qwen2_moe first layer dense, normalised", "qwen3_moe", "olmoe normalised, clipped", "deepseek normalised, every other layer",
        "deepseek_v2 normalised, biases", "deepseek_v3", "gpt_oss", "llama_moe_rnn", "llama_moe_rnn shared expert, bias, first layer dense",
    ];

    [Theory]
    [MemberData(nameof(Models))]
    public void Logits_do_not_depend_on_later_tokens(string name)
    {
        (TinyModel model, int[] tokens, double[][] logits) = MoeModels.Draw(name, 12);
        AssertSame(logits[..7], new MoeOracle(model).Logits(tokens[..7]), model);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Logits_depend_on_experts_that_are_chosen(string name)
    {
        (TinyModel model, int[] tokens, double[][] logits) = MoeModels.Draw(name, 8);
        MoeLayouts.Unite(model);
        Assert.NotEqual(logits[^1][0], new MoeOracle(model).Logits(tokens)[^1][0], 1e-6);
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void The_order_of_experts_and_groups_does_not_matter(string name)
    {
        (TinyModel model, int[] tokens, double[][] logits) = MoeModels.Draw(name, 8);
        MoeLayouts.Reverse(model);
        AssertSame(logits, new MoeOracle(model).Logits(tokens), model);
    }

    [Theory]
    [MemberData(nameof(Normalised))]
    public void Equal_experts_are_one_whatever_their_number(string name)
    {
        (TinyModel model, int[] tokens, double[][] logits) = MoeModels.Draw(name, 8, MoeLayouts.Unite);
        // DeepSeek normalises from two experts on.
        AssertSame(logits, new MoeOracle(model, expertsPerToken: 2).Logits(tokens), model);
        AssertSame(logits, new MoeOracle(model, expertsPerToken: 4).Logits(tokens), model);
    }

    [Theory]
    [InlineData("mixtral window 8, tied, one expert", "mistral")]
    [InlineData("mixtral all experts, head_dim", "mistral")]
    [InlineData("qwen3_moe", "qwen3")]
    [InlineData("deepseek normalised, every other layer", "llama")]
    [InlineData("deepseek_v2 normalised, biases", null)]
    public void Equal_experts_are_a_dense_feed_forward(string name, string? denseType)
    {
        (TinyModel model, int[] tokens, double[][] logits) = MoeModels.Draw(name, 14, MoeLayouts.Unite);
        MakeDense(model);
        if (denseType is null)
        {
            AssertSame(logits, new MoeOracle(model).Logits(tokens), model);
            return;
        }
        model.Config["model_type"] = denseType;
        AssertSame(logits, new DecoderOracle(model).Logits(tokens), model);
    }

    [Theory]
    [InlineData("deepseek_v2")]
    [InlineData("deepseek_v3 yarn, four groups")]
    [InlineData("deepseek_v3 one group, not normalised, whole queries")]
    public void Pairs_side_by_side_are_halves_in_another_order(string name)
    {
        (TinyModel model, int[] tokens, double[][] logits) = MoeModels.Draw(name, 9);
        int ropeDim = (int)model.Config["qk_rope_head_dim"]!, nopeDim = (int)model.Config["qk_nope_head_dim"]!;
        foreach ((string tensor, (long[] shape, float[] values)) in model.Tensors.ToArray())
        {
            bool query = tensor.EndsWith("q_proj.weight", StringComparison.Ordinal) || tensor.EndsWith("q_b_proj.weight", StringComparison.Ordinal);
            if (query || tensor.EndsWith("kv_a_proj_with_mqa.weight", StringComparison.Ordinal))
            {
                int before = query ? nopeDim : (int)model.Config["kv_lora_rank"]!;
                float[][] rows = [.. values.Chunk((int)shape[1])];
                model.Tensors[tensor] = (shape, [.. rows.Chunk(before + ropeDim).SelectMany(head => (float[][])
                    [.. head[..before], .. head[before..].Where(static (_, i) => i % 2 == 0), .. head[before..].Where(static (_, i) => i % 2 == 1)])
                    .SelectMany(static row => row)]);
            }
        }
        model.Config["rope_interleave"] = false;
        AssertSame(logits, new MoeOracle(model).Logits(tokens), model);
    }

    [Fact]
    public void All_experts_weigh_one_together_without_being_normalised()
    {
        (TinyModel model, int[] tokens, double[][] _) = MoeModels.Draw("olmoe", 8);
        double[][] asTheyAre = new MoeOracle(model, expertsPerToken: 8).Logits(tokens);
        model.Config["norm_topk_prob"] = true;
        AssertSame(asTheyAre, new MoeOracle(model, expertsPerToken: 8).Logits(tokens), model);
    }

    [Fact]
    public void A_large_sink_takes_all_attention()
    {
        (TinyModel model, int[] tokens, double[][] logits) = MoeModels.Draw("gpt_oss", 10);
        for (int layer = 0; layer < 3; layer++)
        {
            model.Tensors[$"model.layers.{layer}.self_attn.sinks"].Values.AsSpan().Fill(1e4f);
        }
        double[][] alone = new MoeOracle(model).Logits(tokens);
        // Nothing is seen but the token itself.
        AssertSame([.. tokens.Select(token => new MoeOracle(model).Logits([token])[0])], alone, model);
        Assert.NotEqual(logits[^1][0], alone[^1][0], 1e-6);
    }

    [Fact]
    public void A_recurrent_router_remembers_the_layer_before_and_no_token()
    {
        (TinyModel model, int[] tokens, double[][] logits) = MoeModels.Draw("llama_moe_rnn", 8);
        // A cell that keeps nothing (z = 0, r = 0) makes every layer's choice its own.
        foreach (string gate in (string[])["r", "z"])
        {
            model.Tensors["model.rnn_router.bias_i" + gate].Values.AsSpan().Fill(-1e4f);
        }
        Assert.NotEqual(logits[^1][0], new MoeOracle(model).Logits(tokens)[^1][0], 1e-6);
    }

    [Fact]
    public void Scores_of_a_v3_router_are_chosen_with_their_bias_and_weighed_without_it()
    {
        TinyModel model = MoeModels.Make("deepseek_v3", 1);
        double[] z = [1, 0.5, -1, -2, 3, 2.9, 2.8, 2.7];
        // The second group has the larger sum of two until the bias takes it away; all of the first are then below 0, which a masked value of 0 would beat.
        float[] bias = [-0.8f, -0.9f, -0.5f, -0.6f, -2, -2, -2, -2];
        (int Expert, double Weight)[] chosen = new RouterOracle(model.Config, null).Choose(z, bias);
        Assert.Equal([0, 2, 1], chosen.Select(static choice => choice.Expert));
        double[] scores = [.. new[] { 0, 2, 1 }.Select(e => 1 / (1 + Math.Exp(-z[e])))];
        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(2.5 * scores[i] / scores.Sum(), chosen[i].Weight, 12);
        }
    }

    [Fact]
    public void A_v2_router_chooses_from_the_groups_with_the_best_experts()
    {
        TinyModel model = MoeModels.Make("deepseek_v2", 1);
        // Groups of two, of which the two with the largest maximum are kept: the fifth and sixth experts are better than the fourth, and out.
        double[] z = [5, -9, 4, -8, 3.9, 3.8, 1, 1];
        (int Expert, double Weight)[] chosen = new RouterOracle(model.Config, null).Choose(z, null);
        Assert.Equal([0, 2, 3], chosen.Select(static choice => choice.Expert));
        double sum = z.Sum(Math.Exp);
        Assert.All(chosen, choice => Assert.Equal(1.6 * Math.Exp(z[choice.Expert]) / sum, choice.Weight, 12));
    }

    [Theory]
    [InlineData("deepseek_v2")]
    [InlineData("deepseek_v3 one group, not normalised, whole queries")]
    public void Latent_attention_may_stay_in_the_latent_space(string name)
    {
        // The order of DeepSeek's inference code: queries go through kv_b_proj, keys and values do not.
        TinyModel model = MoeModels.Make(name, Random.Shared.Next());
        int[] rows = [.. Enumerable.Range(0, 6)];
        double[][] x = [.. rows.Select(_ => model.Tokens(32).Select(static token => token / 24.0 - 1).ToArray())];
        const string Name = "model.layers.1.self_attn.";
        int rank = 16, nope = 12, rope = 8, value = 12, heads = 4;
        var rotary = new RotaryOracle(model.Config, rope);
        double[][] compressed = [.. x.Select(row => OracleMath.Linear(row, W("kv_a_proj_with_mqa"), null))];
        double[][] latent = [.. compressed.Select(row => OracleMath.RmsNorm(row[..rank], W("kv_a_layernorm"), 1e-6))];
        double[][] keys = [.. compressed.Select((row, t) => Turn(row[rank..], t))];
        float[][] up = [.. W("kv_b_proj").Chunk(rank)];
        double[][] expected = [.. rows.Select(t =>
        {
            double[] queries = model.Tensors.ContainsKey(Name + "q_proj.weight")
                ? OracleMath.Linear(x[t], W("q_proj"), null)
                : OracleMath.Linear(OracleMath.RmsNorm(OracleMath.Linear(x[t], W("q_a_proj"), null), W("q_a_layernorm"), 1e-6), W("q_b_proj"), null);
            double[] mixed = [.. queries.Chunk(nope + rope).SelectMany((query, head) =>
            {
                float[][] own = up[(head * (nope + value))..((head + 1) * (nope + value))];
                double[] absorbed = [.. Enumerable.Range(0, rank).Select(r => Enumerable.Range(0, nope).Sum(i => query[i] * own[i][r]))];
                double[] turned = Turn(query[nope..], t);
                double[] weights = OracleMath.Softmax([.. rows[..(t + 1)].Select(j => (Dot(absorbed, latent[j]) + Dot(turned, keys[j])) / Math.Sqrt(nope + rope))]);
                double[] sum = [.. Enumerable.Range(0, rank).Select(r => weights.Select((w, j) => w * latent[j][r]).Sum())];
                return own[nope..].Select(row => row.Select((w, r) => w * sum[r]).Sum());
            })];
            return OracleMath.Linear(mixed, W("o_proj"), null);
        })];
        Assert.Equal(heads * value, W("o_proj").Length / 32);
        AssertSame(expected, new MoeAttentionOracle(model).Attend(1, Name, x), model);

        float[] W(string tensor) => model.Tensors[$"{Name}{tensor}.weight"].Values;

        double Dot(double[] a, double[] b) => a.Zip(b, static (p, q) => p * q).Sum();

        // As complex numbers, which lie side by side.
        double[] Turn(double[] part, int position) => [.. part.Chunk(2).SelectMany((pair, i) =>
        {
            var turned = new System.Numerics.Complex(pair[0], pair[1]) * System.Numerics.Complex.FromPolarCoordinates(1, position * rotary.InvFreq[i]);
            return (double[])[turned.Real, turned.Imaginary];
        })];
    }

    [Fact]
    public void A_sparse_mixer_shares_among_logits_that_are_near()
    {
        TinyModel model = MoeModels.Make("phimoe", 1);
        double[] z = [1, 1.01, 0.995, -3, 0.97, 0];
        (int Expert, double Weight)[] chosen = new RouterOracle(model.Config, null).Choose(z, null);
        Assert.Equal([1, 0], chosen.Select(static choice => choice.Expert));
        // Within 2 %: of 1.01 are 1 and 0.995; of 1 is 0.995, and 1.01 is excluded.
        Assert.Equal(Math.Exp(1.01) / (Math.Exp(1.01) + Math.Exp(1) + Math.Exp(0.995)), chosen[0].Weight, 12);
        Assert.Equal(Math.Exp(1) / (Math.Exp(1) + Math.Exp(0.995)), chosen[1].Weight, 12);
    }

    [Fact]
    public void Codes_lie_low_nibble_first()
    {
        float[] values = [.. Enumerable.Range(0, 32).Select(static i => i switch { 0 => 0.5f, 1 => -6, 31 => 4, _ => 0 })];
        (byte[] blocks, byte[] scales) = Mxfp4.Encode(values);
        Assert.Equal([127], scales);
        Assert.Equal([0xF1, .. new byte[14], 0x60], blocks);
    }

    /// <summary>The mixtures become the feed-forward that each is with equal experts, shared ones beside them.</summary>
    private static void MakeDense(TinyModel model)
    {
        string[] mixtures = [.. MoeLayouts.Mixtures(model)];
        (string gate, string up, string down) = MoeModels.Projections(model.Config);
        foreach (string prefix in mixtures)
        {
            string target = prefix.Replace("block_sparse_moe.", "mlp.", StringComparison.Ordinal);
            foreach ((string from, string to) in new[] { (gate, "gate_proj"), (up, "up_proj"), (down, "down_proj") })
            {
                (long[] shape, float[] values) = model.Tensors[$"{prefix}experts.0.{from}.weight"];
                if (model.Tensors.TryGetValue($"{prefix}shared_experts.{from}.weight", out (long[] Shape, float[] Values) shared))
                {
                    (shape, values) = from == down
                        ? ((long[])[shape[0], shape[1] + shared.Shape[1]], SideBySide(shape[1], values, shared.Shape[1], shared.Values))
                        : ([shape[0] + shared.Shape[0], shape[1]], [.. values, .. shared.Values]);
                }
                model.Tensors[$"{target}{to}.weight"] = (shape, values);
            }
        }
        // Nothing is sparse any more.
        model.Config["first_k_dense_replace"] = 99;

        static float[] SideBySide(long leftWidth, float[] left, long rightWidth, float[] right) =>
            [.. left.Chunk((int)leftWidth).Zip(right.Chunk((int)rightWidth)).SelectMany(static rows => (float[])[.. rows.First, .. rows.Second])];
    }

    private static void AssertSame(double[][] expected, double[][] actual, TinyModel model)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int position = 0; position < expected.Length; position++)
        {
            double error = expected[position].Zip(actual[position], static (a, b) => Math.Abs(a - b)).Max();
            Assert.True(error <= Tolerance, $"{model}: position {position} differs by {error}");
        }
    }
}
