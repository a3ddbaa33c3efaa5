using System.Text.Json.Nodes;
using static Engine.Tests.Plans.Oracle.OracleMath;

namespace Engine.Tests.Plans.Oracle;

/// <summary>The attentions of the families with mixtures of experts: grouped queries with what each adds, and DeepSeek's latent attention.</summary>
internal sealed class MoeAttentionOracle(TinyModel model)
{
    private readonly JsonObject config = model.Config;

    /// <summary>From normed rows to what is added to the residual stream; <paramref name="name"/> ends in "self_attn.".</summary>
    public double[][] Attend(int layer, string name, double[][] x) =>
        config["kv_lora_rank"] is null ? Grouped(layer, name, x) : Latent(name, x);

    private string Type => (string)config["model_type"]!;

    private int Heads => Integer("num_attention_heads")!.Value;

    private double[][] Grouped(int layer, string name, double[][] x)
    {
        int headDim = Integer("head_dim") ?? Integer("hidden_size")!.Value / Heads;
        int perKvHead = Heads / (Integer("num_key_value_heads") ?? Heads);
        double epsilon = config["rms_norm_eps"]!.GetValue<double>();
        double? clip = config["clip_qkv"]?.GetValue<double>();
        var rotary = new RotaryOracle(config, headDim, x.Length);
        float[]? sinks = W(name + "sinks");
        int? window = Window(layer);
        double[][][] queries = Project("q_proj", "q_norm", rotate: true), keys = Project("k_proj", "k_norm", rotate: true);
        double[][][] values = Project("v_proj", null, rotate: false);
        return [.. x.Select((_, row) => Linear(
            [.. Enumerable.Range(0, Heads).SelectMany(head => Mix(
                queries[row][head], [.. keys.Select(k => k[head / perKvHead])], [.. values.Select(v => v[head / perKvHead])],
                1 / Math.Sqrt(headDim), j => j <= row && (window is null || row - j < window), sinks?[head]))],
            W(name + "o_proj.weight")!, W(name + "o_proj.bias")))];

        double[][][] Project(string linear, string? norm, bool rotate) => [.. x.Select((row, position) =>
        {
            double[] all = Linear(row, W($"{name}{linear}.weight")!, W($"{name}{linear}.bias"));
            if (Type == "olmoe")
            {
                all = norm is null ? all : RmsNorm(all, W($"{name}{norm}.weight")!, epsilon);
                all = clip is { } limit ? [.. all.Select(value => Math.Clamp(value, -limit, limit))] : all;
            }
            return all.Chunk(headDim).Select(head =>
            {
                double[] normed = Type == "qwen3_moe" && norm is not null ? RmsNorm(head, W($"{name}{norm}.weight")!, epsilon) : head;
                return rotate ? rotary.Apply(normed, position) : normed;
            }).ToArray();
        })];
    }

    /// <summary>Multi-head latent attention (DeepSeek-AI 2024), with keys and values written out.</summary>
    private double[][] Latent(string name, double[][] x)
    {
        int rank = Integer("kv_lora_rank")!.Value, ropeDim = Integer("qk_rope_head_dim")!.Value, nopeDim = Integer("qk_nope_head_dim")!.Value;
        int valueDim = Integer("v_head_dim")!.Value;
        var rotary = new RotaryOracle(config, ropeDim);
        double scale = 1 / Math.Sqrt(nopeDim + ropeDim);
        if ((config["rope_parameters"] ?? config["rope_scaling"]) is JsonObject scaling && scaling["mscale_all_dim"]?.GetValue<double>() is { } all and not 0)
        {
            double factor = scaling["factor"]!.GetValue<double>(), mscale = factor <= 1 ? 1 : 0.1 * all * Math.Log(factor) + 1;
            scale *= mscale * mscale;
        }
        double[][][] queries = [.. x.Select((row, position) => Queries(row).Chunk(nopeDim + ropeDim)
            .Select(q => (double[])[.. q[..nopeDim], .. Rotate(q[nopeDim..], position)]).ToArray())];
        var keys = new double[x.Length][][];
        var values = new double[x.Length][][];
        for (int position = 0; position < x.Length; position++)
        {
            double[] compressed = Linear(x[position], W(name + "kv_a_proj_with_mqa.weight")!, W(name + "kv_a_proj_with_mqa.bias"));
            double[] rotated = Rotate(compressed[rank..], position);
            double[][] heads = [.. Linear(Norm(compressed[..rank], "kv_a_layernorm"), W(name + "kv_b_proj.weight")!, null).Chunk(nopeDim + valueDim)];
            keys[position] = [.. heads.Select(head => (double[])[.. head[..nopeDim], .. rotated])];
            values[position] = [.. heads.Select(head => head[nopeDim..])];
        }
        return [.. x.Select((_, row) => Linear(
            [.. Enumerable.Range(0, Heads).SelectMany(head =>
                Mix(queries[row][head], [.. keys.Select(k => k[head])], [.. values.Select(v => v[head])], scale, j => j <= row, null))],
            W(name + "o_proj.weight")!, W(name + "o_proj.bias")))];

        double[] Queries(double[] row) => W(name + "q_proj.weight") is { } whole
            ? Linear(row, whole, null)
            : Linear(Norm(Linear(row, W(name + "q_a_proj.weight")!, W(name + "q_a_proj.bias")), "q_a_layernorm"), W(name + "q_b_proj.weight")!, null);

        // These two norms keep the default of their class, whatever rms_norm_eps says.
        double[] Norm(double[] row, string norm) => RmsNorm(row, W($"{name}{norm}.weight")!, 1e-6);

        // Pairs lie side by side; brought apart they are what rotate_half expects, and q·k does not see the order.
        double[] Rotate(double[] part, int position) => rotary.Apply(
            config["rope_interleave"]?.GetValue<bool>() == false
                ? part
                : [.. part.Where(static (_, i) => i % 2 == 0), .. part.Where(static (_, i) => i % 2 == 1)],
            position);
    }

    /// <summary>softmax([scale · q·kᵀ + mask | sink])·[v | 0] for one query.</summary>
    private static double[] Mix(double[] query, double[][] keys, double[][] values, double scale, Func<int, bool> visible, double? sink)
    {
        double[] scores = [.. keys.Select((key, j) =>
            visible(j) ? scale * query.Zip(key, static (a, b) => a * b).Sum() : double.NegativeInfinity)];
        double[] weights = Softmax(sink is { } score ? [.. scores, score] : scores);
        return [.. Enumerable.Range(0, values[0].Length).Select(i => values.Select((value, j) => weights[j] * value[i]).Sum())];
    }

    private int? Window(int layer) => Type switch
    {
        "mixtral" or "phimoe" => Integer("sliding_window"),
        "gpt_oss" => (string)config["layer_types"]![layer]! == "sliding_attention" ? Integer("sliding_window") : null,
        _ => null,
    };

    private int? Integer(string key) => config[key]?.GetValue<int>();

    private float[]? W(string name) => model.Tensors.TryGetValue(name, out (long[] Shape, float[] Values) tensor) ? tensor.Values : null;
}
