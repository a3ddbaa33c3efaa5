using System.Text.Json.Nodes;
using static Engine.Tests.Plans.Oracle.OracleMath;

namespace Engine.Tests.Plans.Oracle;

/// <summary>
/// modeling_mixtral, _qwen2_moe, _qwen3_moe, _olmoe, _deepseek (V1 to V3), _phimoe, _gpt_oss and RMoE's llama_moe_rnn in plain doubles: all positions at once, no
/// cache, every expert from its own tensors.
/// </summary>
/// <param name="model">The model, in the layout that <see cref="MoeModels"/> gives it.</param>
/// <param name="expertsPerToken">Experts that a token is sent to, instead of the configuration's.</param>
internal sealed class MoeOracle(TinyModel model, int? expertsPerToken = null)
{
    private readonly JsonObject config = model.Config;
    private readonly MoeAttentionOracle attention = new(model);
    private readonly RouterOracle router = new(model.Config, expertsPerToken);

    /// <summary>Experts whose logits count as −∞ in all layers.</summary>
    public IReadOnlyList<int> Dropped { get; init; } = [];

    /// <summary>RMoE: what the cell said of each token in the layer before.</summary>
    private double[]?[] states = [];

    /// <summary>How near the closest routing decision was to falling otherwise.</summary>
    public double Margin => router.Margin;

    /// <summary>Logits [position][token].</summary>
    /// <param name="tokens">The sequence.</param>
    /// <param name="order">The layers in the order in which they run; null for each once.</param>
    public double[][] Logits(int[] tokens, int[]? order = null)
    {
        int hidden = (int)config["hidden_size"]!;
        float[] embeddings = W("model.embed_tokens.weight")!;
        double[][] x = [.. tokens.Select(token => embeddings.Skip(token * hidden).Take(hidden).Select(static v => (double)v).ToArray())];
        states = new double[]?[tokens.Length];
        foreach (int layer in order ?? Enumerable.Range(0, (int)config["num_hidden_layers"]!))
        {
            string name = $"model.layers.{layer}.";
            double[][] normed = [.. x.Select(row => Norm(row, name + "input_layernorm"))];
            x = [.. x.Zip(attention.Attend(layer, name + "self_attn.", normed), Add)];
            x = [.. x.Select((row, t) => Add(row, FeedForward(layer, name, t, Norm(row, name + "post_attention_layernorm"))))];
        }
        float[] head = config["tie_word_embeddings"]!.GetValue<bool>() ? embeddings : W("lm_head.weight")!;
        return [.. x.Select(row => Linear(Norm(row, "model.norm"), head, W("lm_head.bias")))];
    }

    private double[] Norm(double[] x, string name)
    {
        double epsilon = config["rms_norm_eps"]!.GetValue<double>();
        return W(name + ".bias") is { } bias
            ? LayerNorm(x, W(name + ".weight")!, bias, epsilon)
            : RmsNorm(x, W(name + ".weight")!, epsilon);
    }

    private double[] FeedForward(int layer, string name, int token, double[] x)
    {
        if (!MoeModels.IsSparse(config, layer))
        {
            return Mlp(x, name + "mlp.", "gate_proj", "up_proj", "down_proj");
        }
        string mixture = name + MoeModels.Mixture(config);
        double[] sum = new double[x.Length];
        double[] logits = RouterLogits(mixture, token, x);
        foreach (int expert in Dropped)
        {
            logits[expert] = double.NegativeInfinity;
        }
        foreach ((int expert, double weight) in router.Choose(logits, W(mixture + "gate.e_score_correction_bias")))
        {
            sum = Add(sum, Times(weight, Expert(mixture + "experts.", expert, x)));
        }
        return WithShared(name, mixture, sum, x);
    }

    private double[] RouterLogits(string mixture, int token, double[] x)
    {
        if (W(mixture + "weight1") is { } first)
        {
            states[token] = Cell(Linear(x, first, null), states[token]);
            return Linear(states[token]!, W(mixture + "weight2")!, null);
        }
        string gate = mixture + ((string)config["model_type"]! == "gpt_oss" ? "router" : "gate");
        return Linear(x, W(gate + ".weight")!, W(gate + ".bias"));
    }

    /// <summary>CustomGRUCell or CustomRNNCell.</summary>
    private double[] Cell(double[] u, double[]? before)
    {
        double[] h = before ?? new double[u.Length];
        if ((string)config["moe_router_type"]! == "rnn")
        {
            return [.. Add(Of("i", u, "n"), Of("h", h, "n")).Select(Math.Tanh)];
        }
        double[] r = [.. Add(Of("i", u, "r"), Of("h", h, "r")).Select(RouterOracle.Sigmoid)];
        double[] z = [.. Add(Of("i", u, "z"), Of("h", h, "z")).Select(RouterOracle.Sigmoid)];
        double[] inner = Of("h", h, "n");
        double[] n = [.. Of("i", u, "n").Select((value, i) => Math.Tanh(value + r[i] * inner[i]))];
        return [.. h.Select((value, i) => (1 - z[i]) * n[i] + z[i] * value)];

        double[] Of(string side, double[] input, string gate) =>
            Linear(input, W($"model.rnn_router.weight_{side}{gate}")!, W($"model.rnn_router.bias_{side}{gate}"));
    }

    private double[] Expert(string experts, int expert, double[] x)
    {
        switch ((string)config["model_type"]!)
        {
            case "mixtral" or "phimoe" or "llama_moe_rnn":
                return Mlp(x, $"{experts}{expert}.", "w1", "w3", "w2");
            case "gpt_oss":
                double limit = config["swiglu_limit"]?.GetValue<double>() ?? 7, alpha = config["swiglu_alpha"]?.GetValue<double>() ?? 1.702;
                double[] both = Slice("gate_up_proj", x);
                double[] inner = [.. both.Chunk(2).Select(pair =>
                {
                    double gate = Math.Min(pair[0], limit), up = Math.Clamp(pair[1], -limit, limit);
                    return (up + 1) * gate * RouterOracle.Sigmoid(alpha * gate);
                })];
                return Slice("down_proj", inner);
            default:
                return Mlp(x, $"{experts}{expert}.", "gate_proj", "up_proj", "down_proj");
        }

        // x @ weight[expert] + bias[expert], weight [experts, in, out].
        double[] Slice(string linear, double[] input)
        {
            (long[] shape, float[] values) = model.Tensors[experts + linear];
            int matrix = (int)(shape[1] * shape[2]), outputs = (int)shape[2];
            return Conv1D(
                input, values[(expert * matrix)..((expert + 1) * matrix)], W($"{experts}{linear}_bias")![(expert * outputs)..((expert + 1) * outputs)]);
        }
    }

    private double[] WithShared(string name, string mixture, double[] sum, double[] x)
    {
        switch ((string)config["model_type"]!)
        {
            case "qwen2_moe":
                double gate = RouterOracle.Sigmoid(Linear(x, W(mixture + "shared_expert_gate.weight")!, null)[0]);
                return Add(sum, Times(gate, Mlp(x, mixture + "shared_expert.", "gate_proj", "up_proj", "down_proj")));
            case "deepseek" or "deepseek_v2" or "deepseek_v3" when config["n_shared_experts"] is not null:
                return Add(sum, Mlp(x, mixture + "shared_experts.", "gate_proj", "up_proj", "down_proj"));
            case "llama_moe_rnn":
                sum = W(mixture + "bias") is { } bias ? [.. sum.Zip(bias, static (a, b) => a + b)] : sum;
                return config["add_moe_share_expert"]!.GetValue<bool>()
                    ? Add(
                        Times(config["moe_weight"]!.GetValue<double>(), sum),
                        Times(config["share_weight"]!.GetValue<double>(), Mlp(x, name + "mlp_share.", "gate_proj", "up_proj", "down_proj")))
                    : sum;
            default:
                return sum;
        }
    }

    private double[] Mlp(double[] x, string name, string gateName, string upName, string downName)
    {
        if (W($"{name}{downName}.weight") is { Length: 0 })
        {
            return new double[x.Length];
        }
        return Project(downName, [.. Project(gateName, x).Zip(Project(upName, x), static (g, u) => Silu(g) * u)]);

        // A torch.nn.Linear, or LoSparse's three: left(right(x)) + sparse(x) + bias.
        double[] Project(string linear, double[] input)
        {
            float[]? bias = W($"{name}{linear}.bias");
            if (W($"{name}{linear}.weight") is { } weight)
            {
                return Linear(input, weight, bias);
            }
            double[] product = Linear(Linear(input, W($"{name}{linear}.right.weight")!, null), W($"{name}{linear}.left.weight")!, bias);
            return W($"{name}{linear}.sparse.weight") is { } sparse ? Add(product, Linear(input, sparse, null)) : product;
        }
    }

    private static double[] Times(double factor, double[] x) => [.. x.Select(value => factor * value)];

    private float[]? W(string name) => model.Tensors.TryGetValue(name, out (long[] Shape, float[] Values) tensor) ? tensor.Values : null;
}
