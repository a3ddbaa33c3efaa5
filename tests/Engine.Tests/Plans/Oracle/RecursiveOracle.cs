using System.Text.Json.Nodes;
using static Engine.Tests.Plans.Oracle.OracleMath;

namespace Engine.Tests.Plans.Oracle;

/// <summary>
/// Recursive transformers and Mixture-of-Recursions in plain doubles, all positions at once and no cache: equations 2.1 and 2.2 of Bae et al. (2025) as their code
/// computes them, and its eval selection or the causal one.
/// </summary>
internal sealed class RecursiveOracle(TinyModel model, string sharing, int layers, int recursions, string? kind, bool sharesKv, bool official)
{
    private readonly JsonNode? mor = model.Config["mor"]!["mor"];
    private readonly bool middle = sharing.StartsWith("middle", StringComparison.Ordinal);

    /// <summary>How near the closest decision was to falling otherwise.</summary>
    public double Margin { get; private set; } = double.PositiveInfinity;

    /// <summary>
    /// The smallest factor |1 + w| that a stream was scaled by: x + w·y contains x + w·x, and a w near −1, which a router without a score function may give, cancels it
    /// and leaves the rounding.
    /// </summary>
    public double SmallestFactor { get; private set; } = double.PositiveInfinity;

    /// <summary>Recursions of each token.</summary>
    public int[] Depths { get; private set; } = [];

    private int First => middle ? 1 : 0;

    private int PerDepth => (layers - 2 * First) / recursions;

    /// <summary>Logits [position][token].</summary>
    public double[][] Logits(int[] tokens)
    {
        float[] embeddings = W("model.embed_tokens.weight");
        int hidden = embeddings.Length / (int)model.Config["vocab_size"]!;
        double[][] x = [.. tokens.Select(token => embeddings.Skip(token * hidden).Take(hidden).Select(static v => (double)v).ToArray())];
        int[] all = [.. Enumerable.Range(0, tokens.Length)];
        Depths = [.. all.Select(_ => kind is null ? recursions : 0)];
        if (middle)
        {
            x = Layer(0, x, all, null).Rows;
        }
        x = kind switch { "expert" => Expert(x, all), "token" => Token(x, all), _ => Plain(x, all) };
        if (middle)
        {
            x = Layer(layers - 1, x, all, null).Rows;
        }
        return [.. x.Select(row => Linear(RmsNorm(row, W("model.norm.weight"), 1e-5), embeddings, null))];
    }

    private double[][] Plain(double[][] x, int[] all)
    {
        var written = new Dictionary<int, KeysAndValues>();
        for (int layer = First; layer < layers - First; layer++)
        {
            int owner = RecursiveModels.Owner(sharing, layers, recursions, layer);
            (x, KeysAndValues own) = Layer(layer, x, all, sharesKv && owner != layer ? written[owner] : null);
            written[layer] = own;
        }
        return x;
    }

    private double[][] Expert(double[][] x, int[] all)
    {
        int[] candidates = all;
        KeysAndValues[]? written = null;
        JsonNode settings = mor!["expert"]!;
        double[] capacities = ((string?)mor["capacity"])?.Split(',').Select(double.Parse).ToArray()
            ?? [.. Enumerable.Range(0, recursions).Select(r => (double)(recursions - r) / recursions)];
        for (int depth = 0; depth < recursions; depth++)
        {
            string place = $"model.layers.{First + depth}.";
            double[] z = [.. candidates.Select(t => Router(place + "mor_router.router", x[t], Temperature)[0])];
            double[] w = [.. z.Select(value => (string?)settings["router_func"] switch
            {
                "sigmoid" => Alpha(settings, 0.1) * Sigmoid(value),
                "tanh" => Alpha(settings, 0.1) * Math.Tanh(value),
                _ => value,
            })];
            int[] chosen = official
                ? Best(w, Math.Max(1, (int)(capacities[depth] * all.Length)))
                : [.. Enumerable.Range(0, candidates.Length).Where(i => Enters(settings, place, capacities[depth], z[i], x[candidates[i]]))];
            // With shared keys and values, depth 0 runs on all tokens, whoever is chosen.
            bool ghosts = sharesKv && depth == 0;
            int[] running = ghosts ? all : [.. chosen.Select(i => candidates[i])];
            (double[][] y, KeysAndValues[] own) = Depth(depth, [.. running.Select(t => x[t])], running, sharesKv ? written : null);
            written ??= own;
            foreach (int i in chosen)
            {
                int t = candidates[i];
                double weight = (string?)settings["gating"] == "additive" ? 1 : w[i];
                x[t] = [.. x[t].Zip(y[Array.IndexOf(running, t)], (a, b) => a + weight * b)];
                SmallestFactor = Math.Min(SmallestFactor, Math.Abs(1 + weight));
                Depths[t]++;
            }
            candidates = [.. chosen.Select(i => candidates[i])];
        }
        return x;
    }

    private double[][] Token(double[][] x, int[] all)
    {
        JsonNode settings = mor!["token"]!;
        var chosen = new int[all.Length];
        var weight = new double[all.Length];
        foreach (int t in all)
        {
            double[] z = Router("model.layers.1.mor_router.router", x[t], Temperature);
            double[] g = (string?)settings["router_func"] == "sigmoid"
                ? [.. z.Select(value => Alpha(settings, 0.1) * Sigmoid(value))]
                : [.. Softmax(z).Select(value => Alpha(settings, 1) * value)];
            double[] biased = (string?)settings["balancing"] == "loss_free"
                ? [.. g.Zip(W("model.layers.1.router_bias"), static (a, b) => a + b)]
                : g;
            chosen[t] = Array.IndexOf(biased, biased.Max());
            weight[t] = (string?)settings["gating"] == "additive" ? 1 : g[chosen[t]];
            double[] sorted = [.. biased.OrderDescending()];
            Margin = Math.Min(Margin, sorted[0] - sorted[1]);
            Depths[t] = chosen[t] + 1;
        }
        double[][] y = [.. x];
        KeysAndValues[]? written = null;
        for (int depth = 0; depth < recursions; depth++)
        {
            int[] running = [.. all.Where(t => chosen[t] >= depth)];
            (double[][] rows, KeysAndValues[] own) = Depth(depth, [.. running.Select(t => y[t])], running, sharesKv ? written : null);
            written ??= own;
            for (int i = 0; i < running.Length; i++)
            {
                y[running[i]] = rows[i];
            }
        }
        return [.. all.Select(t => x[t].Zip(y[t], (a, b) => a + weight[t] * b).ToArray())];
    }

    private bool Enters(JsonNode settings, string place, double capacity, double z, double[] x)
    {
        if (capacity >= 1)
        {
            return true;
        }
        double decision = (string?)settings["sampling"] == "aux_router" ? Router(place + "mlp_router.router", x, 1)[0]
            : settings["router_func"] is null ? z - 0.5 : z;
        Margin = Math.Min(Margin, Math.Abs(decision));
        return decision >= 0;
    }

    private int[] Best(double[] weights, int count)
    {
        int[] order = [.. Enumerable.Range(0, weights.Length).OrderByDescending(i => weights[i])];
        if (count < weights.Length)
        {
            Margin = Math.Min(Margin, weights[order[count - 1]] - weights[order[count]]);
        }
        return [.. order.Take(count).Order()];
    }

    private (double[][] Rows, KeysAndValues[] Written) Depth(int depth, double[][] x, int[] positions, KeysAndValues[]? shared)
    {
        var written = new KeysAndValues[PerDepth];
        for (int j = 0; j < PerDepth; j++)
        {
            (x, written[j]) = Layer(First + depth * PerDepth + j, x, positions, shared?[j]);
        }
        return (x, written);
    }

    /// <summary>A llama layer over some tokens at their positions; reads <paramref name="shared"/> instead of its own keys and values where given.</summary>
    private (double[][] Rows, KeysAndValues Own) Layer(int layer, double[][] x, int[] positions, KeysAndValues? shared)
    {
        int owner = RecursiveModels.Owner(sharing, layers, recursions, layer);
        string name = RecursiveModels.Name(kind, middle, layers, recursions, owner) + ".";
        int heads = 4, kvHeads = 2, headDim = x.Length == 0 ? 8 : x[0].Length / heads;
        var rotary = new RotaryOracle(model.Config, headDim);
        double[][] normed = [.. x.Select(row => RmsNorm(row, W(name + "input_layernorm.weight"), 1e-5))];
        double[][][] queries = Heads("q_proj", rotate: true);
        var own = new KeysAndValues(positions, Heads("k_proj", rotate: true), Heads("v_proj", rotate: false));
        KeysAndValues seen = shared ?? own;
        var result = new double[x.Length][];
        for (int i = 0; i < x.Length; i++)
        {
            int position = positions[i];
            double[] mixed = [.. Enumerable.Range(0, heads).SelectMany(head => Attend(
                queries[i][head], [.. seen.Keys.Select(k => k[head / (heads / kvHeads)])], [.. seen.Values.Select(v => v[head / (heads / kvHeads)])],
                1 / Math.Sqrt(headDim), j => seen.Positions[j] <= position))];
            double[] h = Add(x[i], Linear(mixed, W(name + "self_attn.o_proj.weight"), null));
            double[] inner = RmsNorm(h, W(name + "post_attention_layernorm.weight"), 1e-5);
            double[] gate = Linear(inner, W(name + "mlp.gate_proj.weight"), null), up = Linear(inner, W(name + "mlp.up_proj.weight"), null);
            result[i] = Add(h, Linear([.. gate.Zip(up, static (g, u) => Silu(g) * u)], W(name + "mlp.down_proj.weight"), null));
        }
        return (result, own);

        double[][][] Heads(string linear, bool rotate) => [.. normed.Select((row, i) =>
            Linear(row, W($"{name}self_attn.{linear}.weight"), null).Chunk(headDim)
                .Select(head => rotate ? rotary.Apply(head, positions[i]) : head).ToArray())];
    }

    private double[] Router(string name, double[] x, double temperature)
    {
        double[] input = [.. x.Select(value => value / temperature)];
        return (string?)mor!["router_type"] == "linear"
            ? Linear(input, W(name + ".weight"), null)
            : Linear([.. Linear(input, W(name + ".0.weight"), null).Select(GeluExact)], W(name + ".2.weight"), null);
    }

    private double Temperature => (double?)mor!["temp"] ?? 1;

    private static double Alpha(JsonNode settings, double otherwise) => (double?)settings["alpha"] ?? otherwise;

    private static double Sigmoid(double z) => 1 / (1 + Math.Exp(-z));

    private float[] W(string name) => model.Tensors[name].Values;

    private sealed record KeysAndValues(int[] Positions, double[][][] Keys, double[][][] Values);
}
