using System.Globalization;
using System.Text.RegularExpressions;
using Engine.Checkpoints;

namespace Engine.Transforms.Pruning;

/// <summary>A gated feed-forward in a checkpoint: an expert, or that of a layer without experts.</summary>
internal sealed partial record StoredFeedForward
{
    /// <summary>What the names of its tensors begin with: <c>model.layers.3.mlp.experts.5</c>.</summary>
    public required string Module { get; init; }

    /// <summary>Gate, [width, hidden].</summary>
    public required TensorView Gate { get; init; }

    /// <summary>Up, [width, hidden].</summary>
    public required TensorView Up { get; init; }

    /// <summary>Down, [hidden, width].</summary>
    public required TensorView Down { get; init; }

    /// <summary>Biases of gate and up, [width] each, and of down, [hidden]; those that there are.</summary>
    public TensorView?[] Biases { get; init; } = [null, null, null];

    /// <summary>The tensors of all experts that it is a part of; empty where its tensors are its own.</summary>
    public string[] Stack { get; init; } = [];

    /// <summary>Neurons: rows of gate and up, columns of down.</summary>
    public int Width => (int)Down.Columns;

    /// <summary>The layer whose own feed-forward this is; null of an expert.</summary>
    public int? DenseLayer => LayerOf(Module);

    /// <summary>Feed-forwards that are pruned together: the experts of a layer, the shared ones of it, or one.</summary>
    public string Group => Module.LastIndexOf(Experts, StringComparison.Ordinal) is >= 0 and var at ? Module[..at] : Module;

    private const string Experts = ".experts.", Weight = ".weight";

    private static readonly (string Gate, string Up, string Down)[] Names = [("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")];

    /// <summary>
    /// Those of a checkpoint in Hugging Face's vocabulary whose matrices are F32, F16 or BF16 and fit each other, in the order of their down projections: by
    /// module, or all experts of a layer in a tensor each (<c>experts.gate_up_proj</c>, or <c>experts.gate_proj</c> and <c>up_proj</c>, [experts, …]).
    /// Those that gpt-oss has as [inputs, outputs] are not among them.
    /// </summary>
    public static IEnumerable<StoredFeedForward> Find(Checkpoint checkpoint)
    {
        foreach (string name in checkpoint.TensorNames)
        {
            if (Names.FirstOrDefault(names => name.EndsWith($".{names.Down}{Weight}", StringComparison.Ordinal)) is { Down: not null } names
                && Single(checkpoint, name[..^(names.Down.Length + 1 + Weight.Length)], names) is { } single)
            {
                yield return single;
            }
            foreach (StoredFeedForward expert in Stacked(checkpoint, name))
            {
                yield return expert;
            }
        }
    }

    private static StoredFeedForward? Single(Checkpoint checkpoint, string module, (string Gate, string Up, string Down) names)
    {
        TensorView? gate = Matrix(names.Gate), up = Matrix(names.Up), down = Matrix(names.Down);
        return Fit(gate, up, down) && (LayerOf(module) is not null || IsExpert(module))
            ? new StoredFeedForward { Module = module, Gate = gate!, Up = up!, Down = down!, Biases = [Bias(names.Gate), Bias(names.Up), Bias(names.Down)] }
            : null;

        TensorView? Matrix(string linear) => checkpoint.TryGetTensor($"{module}.{linear}{Weight}", out TensorView? tensor) ? tensor : null;

        TensorView? Bias(string linear) => checkpoint.TryGetTensor($"{module}.{linear}.bias", out TensorView? tensor) ? tensor : null;
    }

    private static IEnumerable<StoredFeedForward> Stacked(Checkpoint checkpoint, string name)
    {
        const string Last = ".experts.down_proj";
        string suffix = name.EndsWith(Weight, StringComparison.Ordinal) ? Weight : "";
        string all = name[..^suffix.Length];
        if (!all.EndsWith(Last, StringComparison.Ordinal) || checkpoint.TryGetTensor(name + "_bias", out _)
            || !checkpoint.TryGetTensor(name, out TensorView? down) || down is not { Shape: [var experts, var hidden, var width], ElementCount: > 0 })
        {
            yield break;
        }
        all = all[..^"down_proj".Length];
        string both = $"{all}gate_up_proj{suffix}", gate = $"{all}gate_proj{suffix}", up = $"{all}up_proj{suffix}";
        bool fused = Has(both, experts, 2 * width, hidden);
        if (!fused && !(Has(gate, experts, width, hidden) && Has(up, experts, width, hidden)))
        {
            yield break;
        }
        string[] biases = [$"{all}gate_proj.bias", $"{all}up_proj.bias", $"{all}down_proj.bias"];
        string[] stack = [.. (fused ? [both] : new[] { gate, up }), name, .. biases.Where(bias => checkpoint.TryGetTensor(bias, out _))];
        if (biases.Where(stack.Contains).Any(bias => checkpoint[bias] is not { Shape: [var count, _] } || count != experts))
        {
            yield break;
        }
        for (int expert = 0; expert < experts; expert++)
        {
            string module = string.Create(CultureInfo.InvariantCulture, $"{all}{expert}");
            TensorView gates = checkpoint[fused ? both : gate], ups = checkpoint[fused ? both : up];
            var found = new StoredFeedForward
            {
                Module = module,
                Gate = Part(gates, fused ? 2 * expert : expert, width, "gate_proj"),
                Up = Part(ups, fused ? 2 * expert + 1 : expert, width, "up_proj"),
                Down = Part(down, expert, hidden, "down_proj"),
                Biases = [.. biases.Select(bias => stack.Contains(bias)
                    ? checkpoint[bias].SliceRows(expert, 1) with { Name = $"{module}{bias[(all.Length - 1)..]}", Shape = [checkpoint[bias].Columns] } : null)],
                Stack = stack,
            };
            if (Fit(found.Gate, found.Up, found.Down))
            {
                yield return found;
            }

            TensorView Part(TensorView tensor, long index, long rows, string linear) =>
                tensor.SliceRows(index * rows, rows) with { Name = $"{module}.{linear}{Weight}" };
        }

        bool Has(string tensor, params long[] shape) =>
            checkpoint.TryGetTensor(tensor, out TensorView? found) && found.Coded is null && found.Shape.AsSpan().SequenceEqual(shape);
    }

    private static bool Fit(TensorView? gate, TensorView? up, TensorView? down) =>
        down is { Shape: [var hidden, var width], ElementCount: > 0 } && width <= int.MaxValue && hidden <= int.MaxValue
        && IsFloat(gate) && IsFloat(up) && IsFloat(down) && gate!.Shape.AsSpan().SequenceEqual([width, hidden])
        && up!.Shape.AsSpan().SequenceEqual([width, hidden]);

    private static bool IsExpert(string module) =>
        module.Contains("expert", StringComparison.Ordinal) || module.EndsWith(".mlp_share", StringComparison.Ordinal);

    private static int? LayerOf(string module) =>
        DenseModule().Match(module) is { Success: true } match ? int.Parse(match.Groups["layer"].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture) : null;

    [GeneratedRegex(@"(^|\.)layers\.(?<layer>[0-9]{1,9})\.mlp$", RegexOptions.CultureInvariant)]
    private static partial Regex DenseModule();

    private static bool IsFloat(TensorView? tensor) => tensor?.DType is DType.F32 or DType.F16 or DType.BF16;
}
