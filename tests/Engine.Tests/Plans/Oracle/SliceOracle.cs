using System.Text.Json.Nodes;
using static Engine.Tests.Plans.Oracle.OracleMath;

namespace Engine.Tests.Plans.Oracle;

/// <summary>CompressedLlamaDecoderLayer and RMSN of SliceGPT in plain doubles: all positions at once, no cache.</summary>
internal sealed class SliceOracle(TinyModel model, int original)
{
    private const double Epsilon = 1e-5;

    private readonly JsonObject config = model.Config;

    /// <summary>Logits [position][token].</summary>
    public double[][] Logits(int[] tokens)
    {
        (long[] shape, float[] embeddings) = model.Tensors["model.embed_tokens.weight"];
        int width = (int)shape[1], headDim = (int)config["head_dim"]!;
        var rotary = new RotaryOracle(config, headDim);
        double[][] x = [.. tokens.Select(token => embeddings.Skip(token * width).Take(width).Select(static v => (double)v).ToArray())];
        for (int layer = 0; layer < (int)config["num_hidden_layers"]!; layer++)
        {
            string name = $"model.layers.{layer}.";
            double[][] attended = [.. Attention(name + "self_attn.", [.. x.Select(Norm)], headDim, rotary)];
            x = [.. x.Zip(attended, (row, added) => Add(Rotate(row, name + "attn_shortcut_Q"), added))];
            x = [.. x.Select(row => Add(Rotate(row, name + "mlp_shortcut_Q"), Mlp(name + "mlp.", Norm(row))))];
        }
        return [.. x.Select(row => Linear(Norm(row), W("lm_head.weight"), null))];
    }

    /// <summary>x · rsqrt(Σ x² / mean_dim + eps).</summary>
    private double[] Norm(double[] x)
    {
        double factor = 1 / Math.Sqrt(x.Sum(static v => v * v) / original + Epsilon);
        return [.. x.Select(v => v * factor)];
    }

    /// <summary>torch.matmul(residual, Q).</summary>
    private double[] Rotate(double[] x, string name)
    {
        float[] q = W(name);
        int outputs = q.Length / x.Length;
        return [.. Enumerable.Range(0, outputs).Select(o => Enumerable.Range(0, x.Length).Sum(i => x[i] * q[i * outputs + o]))];
    }

    private IEnumerable<double[]> Attention(string name, double[][] x, int headDim, RotaryOracle rotary)
    {
        double[][][] queries = Project("q_proj", true), keys = Project("k_proj", true), values = Project("v_proj", false);
        int heads = queries[0].Length, group = heads / keys[0].Length;
        return x.Select((_, i) => Linear(
            [.. Enumerable.Range(0, heads).SelectMany(head => Attend(
                queries[i][head], [.. keys.Select(k => k[head / group])], [.. values.Select(v => v[head / group])], 1 / Math.Sqrt(headDim), j => j <= i))],
            W(name + "o_proj.weight"), null));

        double[][][] Project(string linear, bool rotate) => [.. x.Select((row, position) => Linear(row, W($"{name}{linear}.weight"), null).Chunk(headDim)
            .Select(head => rotate ? rotary.Apply(head, position) : head).ToArray())];
    }

    private double[] Mlp(string name, double[] x) => Linear(
        [.. Linear(x, W(name + "gate_proj.weight"), null).Zip(Linear(x, W(name + "up_proj.weight"), null), static (g, u) => Silu(g) * u)],
        W(name + "down_proj.weight"), null);

    private float[] W(string name) => model.Tensors[name].Values;
}
