using System.Text.Json.Nodes;
using static Engine.Tests.Plans.Oracle.OracleMath;

namespace Engine.Tests.Plans.Oracle;

/// <summary>modeling_llama, _mistral, _qwen2 and _qwen3 in plain doubles: all positions at once, no cache.</summary>
internal sealed class DecoderOracle(TinyModel model)
{
    private readonly JsonObject config = model.Config;

    /// <summary>Logits [position][token].</summary>
    public double[][] Logits(int[] tokens)
    {
        int hidden = Integer("hidden_size")!.Value, heads = Integer("num_attention_heads")!.Value;
        int kvHeads = Integer("num_key_value_heads") ?? heads;
        int headDim = Integer("head_dim") ?? hidden / heads;
        double epsilon = config["rms_norm_eps"]!.GetValue<double>();
        var rotary = new RotaryOracle(config, headDim);
        float[] embeddings = W("model.embed_tokens.weight")!;
        double[][] x = [.. tokens.Select(token => embeddings.Skip(token * hidden).Take(hidden).Select(static v => (double)v).ToArray())];
        for (int layer = 0; layer < Integer("num_hidden_layers"); layer++)
        {
            string name = $"model.layers.{layer}.";
            double[][] normed = [.. x.Select(row => RmsNorm(row, W(name + "input_layernorm.weight")!, epsilon))];
            double[][] attended = Attention(name + "self_attn.", normed, layer, heads, kvHeads, headDim, rotary, epsilon);
            x = [.. x.Zip(attended, Add)];
            x = [.. x.Select(row => Add(row, Mlp(name + "mlp.", RmsNorm(row, W(name + "post_attention_layernorm.weight")!, epsilon))))];
        }
        float[] head = config["tie_word_embeddings"]!.GetValue<bool>() ? embeddings : W("lm_head.weight")!;
        return [.. x.Select(row => Linear(RmsNorm(row, W("model.norm.weight")!, epsilon), head, null))];
    }

    private double[][] Attention(
        string name, double[][] x, int layer, int heads, int kvHeads, int headDim, RotaryOracle rotary, double epsilon)
    {
        double[][][] queries = Project("q_proj", "q_norm", rotate: true), keys = Project("k_proj", "k_norm", rotate: true);
        double[][][] values = Project("v_proj", null, rotate: false);
        int? window = Window(layer);
        var result = new double[x.Length][];
        for (int i = 0; i < x.Length; i++)
        {
            int row = i;
            var mixed = new List<double>();
            for (int head = 0; head < heads; head++)
            {
                int shared = head / (heads / kvHeads); // repeat_kv
                mixed.AddRange(Attend(
                    queries[i][head], [.. keys.Select(k => k[shared])], [.. values.Select(v => v[shared])], 1 / Math.Sqrt(headDim),
                    j => j <= row && (window is null || row - j < window)));
            }
            result[i] = Linear([.. mixed], W(name + "o_proj.weight")!, W(name + "o_proj.bias"));
        }
        return result;

        double[][][] Project(string linear, string? norm, bool rotate) => [.. x.Select((row, position) =>
            Linear(row, W($"{name}{linear}.weight")!, W($"{name}{linear}.bias")).Chunk(headDim).Select(head =>
            {
                double[] normed = norm is not null && Type == "qwen3" ? RmsNorm(head, W($"{name}{norm}.weight")!, epsilon) : head;
                return rotate ? rotary.Apply(normed, position) : normed;
            }).ToArray())];
    }

    private double[] Mlp(string name, double[] x)
    {
        Func<double, double> act = (string)config["hidden_act"]! == "silu" ? Silu : GeluNew;
        double[] gate = Linear(x, W(name + "gate_proj.weight")!, W(name + "gate_proj.bias"));
        double[] up = Linear(x, W(name + "up_proj.weight")!, W(name + "up_proj.bias"));
        return Linear([.. gate.Zip(up, (g, u) => act(g) * u)], W(name + "down_proj.weight")!, W(name + "down_proj.bias"));
    }

    private string Type => (string)config["model_type"]!;

    private int? Window(int layer)
    {
        int? window = Integer("sliding_window");
        switch (Type)
        {
            case "mistral":
                return window;
            case "qwen2" or "qwen3" when config["use_sliding_window"]?.GetValue<bool>() == true:
                bool slides = config["layer_types"] is JsonArray types
                    ? (string)types[layer]! == "sliding_attention"
                    : layer >= Integer("max_window_layers");
                return slides ? window : null;
            default:
                return null;
        }
    }

    private int? Integer(string key) => config[key]?.GetValue<int>();

    private float[]? W(string name) => model.Tensors.TryGetValue(name, out (long[] Shape, float[] Values) tensor) ? tensor.Values : null;
}
