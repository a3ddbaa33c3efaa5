using System.Globalization;
using System.Text.RegularExpressions;

namespace Engine.Checkpoints.Writing;

/// <summary>
/// Collects the matrices of experts, whether a file has them one by one or fused (transformers 5), for the tensors that GGUF has of them:
/// <c>blk.N.ffn_{gate,up,down}_exps.weight</c>, [experts, outputs, inputs].
/// </summary>
/// <param name="path">The file that they come from, for messages.</param>
/// <param name="experts">How many a layer must have: GGUF has one number for all layers.</param>
/// <param name="width">The inner width that they must have.</param>
internal sealed partial class ExpertStacks(string path, long experts, long width)
{
    private readonly OrderedDictionary<string, SortedDictionary<int, TensorView>> stacks = [];

    /// <summary>A tensor of GGUF that one of experts becomes a part of, or null where it belongs to none; gate and up are of one type.</summary>
    /// <param name="name">Its name in Hugging Face's vocabulary.</param>
    /// <param name="ggufName">Its name in GGUF's, or null.</param>
    public static string? StackOf(string name, string? ggufName)
    {
        if (ggufName is not null && Single().Match(ggufName) is { Success: true } single)
            return $"{single.Groups["stack"].Value}_exps.weight";
        return Fused().Match(name) is { Success: true } fused
            ? $"blk.{fused.Groups["layer"].Value}.ffn_{(fused.Groups["kind"].Value == "down" ? "down" : "gate")}_exps.weight" : null;
    }

    /// <summary>Takes a tensor if it belongs to experts.</summary>
    /// <param name="name">Its name in Hugging Face's vocabulary.</param>
    /// <param name="ggufName">Its name in GGUF's, which is that of old files for a single expert's; null where there is none.</param>
    /// <param name="tensor">The tensor.</param>
    public bool TryAdd(string name, string? ggufName, TensorView tensor)
    {
        if (ggufName is not null && Single().Match(ggufName) is { Success: true } single)
        {
            Add($"{single.Groups["stack"].Value}_exps.weight", Number(single.Groups["expert"]), tensor);
            return true;
        }
        if (Fused().Match(name) is not { Success: true } fused || tensor.Shape is not [var count and <= int.MaxValue, var rows, _])
            return false;
        string[] kinds = fused.Groups["kind"].Value switch { "gate_up" => ["gate", "up"], var kind => [kind] };
        long part = rows / kinds.Length;
        for (int expert = 0; expert < count; expert++)
        {
            for (int kind = 0; kind < kinds.Length; kind++)
            {
                Add($"blk.{fused.Groups["layer"].Value}.ffn_{kinds[kind]}_exps.weight", expert,
                    tensor.SliceRows(expert * rows + kind * part, part));
            }
        }
        return true;
    }

    /// <summary>The stacked tensors.</summary>
    /// <param name="typeOf">How a tensor of this name and shape is stored.</param>
    /// <exception cref="EngineException">Experts differ in number or width, which GGUF cannot express, or one is missing.</exception>
    public IEnumerable<TensorSource> Sources(Func<string, long[], DType> typeOf)
    {
        foreach ((string name, SortedDictionary<int, TensorView> stack) in stacks)
        {
            if (stack.Count != experts || stack.Keys.Last() != experts - 1)
            {
                throw new EngineException(
                    $"expected {experts} experts, found {stack.Count}: GGUF stores as many of them in every layer, numbered without gaps", path, name);
            }
            TensorView first = stack[0];
            foreach (TensorView tensor in stack.Values)
            {
                if (!tensor.Shape.AsSpan().SequenceEqual(first.Shape) || tensor.Shape.Length != 2
                    || tensor.Shape[name.EndsWith("ffn_down_exps.weight", StringComparison.Ordinal) ? 1 : 0] != width)
                {
                    throw new EngineException(
                        $"expected experts that are all {width} wide, found {tensor.DescribeShape()}: GGUF stores those of a layer as one tensor",
                        path, tensor.Name);
                }
            }
            long[] shape = [stack.Count, .. first.Shape];
            yield return TensorSource.Stack(name, typeOf(name, shape), shape, [.. stack.Values]);
        }
    }

    private void Add(string name, int expert, TensorView tensor)
    {
        if (!stacks.TryGetValue(name, out SortedDictionary<int, TensorView>? stack))
            stacks.Add(name, stack = []);
        if (!stack.TryAdd(expert, tensor))
            throw new EngineException($"expert {expert} is there twice", path, tensor.Name);
    }

    private static int Number(Group group) => int.Parse(group.ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^(?<stack>blk\.[0-9]+\.ffn_(gate|up|down))\.(?<expert>[0-9]{1,9})\.weight$", RegexOptions.CultureInvariant)]
    private static partial Regex Single();

    [GeneratedRegex(@"^model\.layers\.(?<layer>[0-9]+)\.mlp\.experts\.(?<kind>gate_up|gate|up|down)_proj(\.weight)?$", RegexOptions.CultureInvariant)]
    private static partial Regex Fused();
}
