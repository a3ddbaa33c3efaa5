using System.Text.Json.Nodes;
using static Engine.Tests.Plans.Oracle.OracleMath;

namespace Engine.Tests.Plans.Oracle;

/// <summary>modeling_gpt2 in plain doubles: all positions at once, no cache.</summary>
internal sealed class Gpt2Oracle(TinyModel model)
{
    private readonly JsonObject config = model.Config;
    private readonly string prefix = model.Tensors.ContainsKey("transformer.wte.weight") ? "transformer." : "";

    /// <summary>Logits [position][token].</summary>
    public double[][] Logits(int[] tokens)
    {
        int hidden = config["n_embd"]!.GetValue<int>();
        float[] wte = W("wte.weight"), wpe = W("wpe.weight");
        double[][] x = [.. tokens.Select((token, position) =>
            Enumerable.Range(0, hidden).Select(i => (double)wte[token * hidden + i] + wpe[position * hidden + i]).ToArray())];
        for (int layer = 0; layer < config["n_layer"]!.GetValue<int>(); layer++)
        {
            string name = $"h.{layer}.";
            double[][] attended = Attention(name + "attn.", [.. x.Select(row => Norm(row, name + "ln_1"))], layer);
            x = [.. x.Zip(attended, Add)];
            x = [.. x.Select(row => Add(row, Mlp(name + "mlp.", Norm(row, name + "ln_2"))))];
        }
        float[] head = config["tie_word_embeddings"]?.GetValue<bool>() == false ? model.Tensors["lm_head.weight"].Values : wte;
        return [.. x.Select(row => Linear(Norm(row, "ln_f"), head, null))];
    }

    private double[][] Attention(string name, double[][] x, int layer)
    {
        int heads = config["n_head"]!.GetValue<int>(), hidden = x[0].Length, headDim = hidden / heads;
        double scale = config["scale_attn_weights"]?.GetValue<bool>() == false ? 1 : Math.Pow(headDim, -0.5);
        if (config["scale_attn_by_inverse_layer_idx"]?.GetValue<bool>() == true)
        {
            scale /= layer + 1.0;
        }
        // c_attn(x).split(hidden), each [.., heads, headDim]
        double[][][] split = [.. x.Select(row => Conv1D(row, W(name + "c_attn.weight"), W(name + "c_attn.bias")).Chunk(headDim).ToArray())];
        return [.. split.Select((row, i) =>
        {
            double[] mixed = [.. Enumerable.Range(0, heads).SelectMany(head => Attend(
                row[head], [.. split.Select(r => r[heads + head])], [.. split.Select(r => r[2 * heads + head])], scale, j => j <= i))];
            return Conv1D(mixed, W(name + "c_proj.weight"), W(name + "c_proj.bias"));
        })];
    }

    private double[] Mlp(string name, double[] x)
    {
        Func<double, double> act = (string)config["activation_function"]! == "gelu" ? GeluExact : GeluNew;
        double[] inner = [.. Conv1D(x, W(name + "c_fc.weight"), W(name + "c_fc.bias")).Select(act)];
        return Conv1D(inner, W(name + "c_proj.weight"), W(name + "c_proj.bias"));
    }

    private double[] Norm(double[] x, string name) =>
        LayerNorm(x, W(name + ".weight"), W(name + ".bias"), config["layer_norm_epsilon"]!.GetValue<double>());

    private float[] W(string name) => model.Tensors[prefix + name].Values;
}
