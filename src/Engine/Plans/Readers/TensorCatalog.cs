using System.Globalization;
using System.Text.RegularExpressions;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>
/// Names tensors for a plan and checks each against the checkpoint. A wrong shape is an error at once; missing tensors are collected, so
/// that one
/// message names all of them; tensors that nobody asked for are an error at the end, since a model that has them computes something else.
/// </summary>
internal sealed partial class TensorCatalog(Checkpoint checkpoint)
{
    private readonly HashSet<string> used = [];
    private readonly List<string> missing = [];

    /// <summary>The checkpoint.</summary>
    public Checkpoint Checkpoint => checkpoint;

    /// <summary>
    /// The name under which a tensor is stored once for several, or null. Asked where a tensor does not exist under its own name: models that share
    /// layers may store each name, or the first of those that are equal.
    /// </summary>
    public Func<string, string?>? Owner { get; init; }

    /// <summary>The tensor exists.</summary>
    public bool Has(string name) => checkpoint.TryGetOutline(Resolve(name), out _);

    /// <summary>
    /// What the names of the model's body begin with: this, unless none does (a base model that was saved without its head).
    /// </summary>
    public string Prefix(string usual) => checkpoint.TensorNames.Any(name => name.StartsWith(usual, StringComparison.Ordinal)) ? usual : "";

    /// <summary>The tensor's shape, or null where it is missing.</summary>
    public long[]? ShapeOf(string name) => checkpoint.TryGetOutline(Resolve(name), out TensorView? tensor) ? tensor.Shape : null;

    /// <summary>The whole of a matrix [outputs, inputs], or [inputs, outputs] where transposed.</summary>
    public WeightRef Matrix(string name, int outputs, int inputs, bool transposed = false)
    {
        return new WeightRef(Check(name, transposed ? [inputs, outputs] : [outputs, inputs]), 0, transposed);
    }

    /// <summary>A table of rows of which the first <paramref name="rows"/> are used; files may pad it with more.</summary>
    public WeightRef Table(string name, int rows, int width)
    {
        name = Resolve(name);
        if (Use(name) is { } tensor && (tensor.Shape.Length != 2 || tensor.Shape[0] < rows || tensor.Shape[1] != width))
        {
            throw new EngineException($"expected shape [{rows} or more, {width}]; found {Show(tensor.Shape)}", checkpoint.Path, name);
        }
        return new WeightRef(name);
    }

    /// <summary>A vector.</summary>
    public WeightRef Vector(string name, int length) => new(Check(name, [length]));

    /// <summary>A tensor of any number of dimensions.</summary>
    public WeightRef Tensor(string name, params ReadOnlySpan<long> shape) => new(Check(name, shape));

    /// <summary>A tensor of bytes that are codes or scales, not numbers.</summary>
    public WeightRef Codes(string name, params ReadOnlySpan<long> shape) => new(Check(name, shape, codes: true));

    /// <summary>A vector where it exists or must exist, else null.</summary>
    public WeightRef? VectorOrNull(string name, int length, bool required = false) => required || Has(name) ? Vector(name, length) : null;

    /// <summary><c>{name}.weight</c> [outputs, inputs] and, where it exists or must exist, <c>{name}.bias</c> [outputs].</summary>
    public LinearPart Part(string name, int outputs, int inputs, bool biasRequired = false) =>
        new(outputs, Matrix(name + ".weight", outputs, inputs), VectorOrNull(name + ".bias", outputs, biasRequired));

    /// <summary>The values of a small vector of floats that is needed to make the plan.</summary>
    /// <param name="name">The tensor.</param>
    /// <param name="length">Its length.</param>
    /// <param name="anyFloat">F16 and BF16 will do; otherwise only F32.</param>
    public float[] Values(string name, int length, bool anyFloat = false)
    {
        if (Use(name) is not { } tensor)
        {
            throw new EngineException("the tensor is missing", checkpoint.Path, name);
        }
        bool fits = tensor.DType == DType.F32 || (anyFloat && tensor.DType is (DType.F16 or DType.BF16));
        return fits && tensor.Shape is [long found] && found == length
            ? checkpoint[name].ToFloats()
            : throw new EngineException(
                $"expected {(anyFloat ? "floats" : "F32")} [{length}]; found {tensor.DType} {Show(tensor.Shape)}", checkpoint.Path, name);
    }

    /// <summary>Complains about tensors that are missing, then about tensors that the plan leaves out.</summary>
    /// <param name="family">The family, for the message.</param>
    /// <param name="ignorable">Tensors that carry no weights of the forward pass.</param>
    public void Complete(string family, Func<string, bool> ignorable)
    {
        if (missing.Count > 0)
        {
            throw new EngineException($"{Tensors(missing.Count)} missing from this {family} model: {Shorten(missing)}", checkpoint.Path);
        }
        string[] unused = [.. checkpoint.TensorNames.Where(name => !used.Contains(name) && !ignorable(name))];
        if (unused.Length > 0)
        {
            throw new EngineException($"{Tensors(unused.Length)} not known in a {family} model: {Shorten(unused)}", checkpoint.Path);
        }
    }

    private static string Tensors(int count) => count == 1 ? "a tensor is" : $"{count} tensors are";

    private string Resolve(string name) => Owner is null || checkpoint.TryGetOutline(name, out _) ? name : Owner(name) ?? name;

    /// <summary>The name under which the tensor is stored.</summary>
    private string Check(string name, ReadOnlySpan<long> shape, bool codes = false)
    {
        name = Resolve(name);
        if (Use(name, codes) is { } tensor && !shape.SequenceEqual(tensor.Shape))
        {
            throw new EngineException($"expected shape {Show(shape)}; found {Show(tensor.Shape)}", checkpoint.Path, name);
        }
        return name;
    }

    private TensorView? Use(string name, bool codes = false)
    {
        bool first = used.Add(name);
        if (!checkpoint.TryGetOutline(name, out TensorView? tensor))
        {
            if (first)
            {
                missing.Add(name);
            }
            return null;
        }
        if (codes)
        {
            return tensor.DType is DType.U8 or DType.F8_E8M0
                ? tensor : throw new EngineException($"expected bytes; found {tensor.DType}", checkpoint.Path, name);
        }
        bool isInteger = tensor.DType is DType.I8 or DType.I16 or DType.I32 or DType.I64
            or DType.U8 or DType.U16 or DType.U32 or DType.U64 or DType.Bool;
        return isInteger ? throw new EngineException($"expected weights; found {tensor.DType}", checkpoint.Path, name) : tensor;
    }

    private static string Show(ReadOnlySpan<long> shape) => $"[{string.Join(", ", shape.ToArray())}]";

    /// <summary>
    /// Writes the tensors of many layers, and of many experts in them, as one: <c>model.layers.{0…5}.mlp.experts.{3,7…9}.up_proj.weight</c>.
    /// </summary>
    internal static string Shorten(IEnumerable<string> names)
    {
        const int mostPatterns = 12;
        List<NumberedName> patterns = [.. names.Select(static name => new NumberedName(
            Number().Replace(name, "\0"), [.. Number().Matches(name).Select(static match => match.Value)]))];
        for (int place = patterns.Max(static name => name.Numbers.Length) - 1; place >= 0; place--)
        {
            patterns = Merge(patterns, place);
        }
        string shown = string.Join(", ", patterns.Take(mostPatterns));
        return patterns.Count <= mostPatterns ? shown : $"{shown} and {patterns.Count - mostPatterns} more kinds";
    }

    /// <summary>Makes one of names that differ in one of their numbers only, in the order in which they first appear.</summary>
    private static List<NumberedName> Merge(List<NumberedName> names, int place)
    {
        var merged = new OrderedDictionary<string, (NumberedName First, List<int> Numbers)>();
        foreach (NumberedName name in names)
        {
            bool has = place < name.Numbers.Length;
            string key = has ? name.With(place, "").ToString() : name.ToString();
            if (!merged.TryGetValue(key, out (NumberedName First, List<int> Numbers) group))
            {
                merged.Add(key, group = (name, []));
            }
            if (has)
            {
                group.Numbers.Add(int.Parse(name.Numbers[place], NumberStyles.None, CultureInfo.InvariantCulture));
            }
        }
        return [.. merged.Values.Select(group => group.Numbers.Count > 1 ? group.First.With(place, Ranges(group.Numbers)) : group.First)];
    }

    private static string Ranges(List<int> numbers)
    {
        numbers.Sort();
        var ranges = new List<string>();
        for (int first = 0, next; first < numbers.Count; first = next)
        {
            next = first + 1;
            while (next < numbers.Count && numbers[next] == numbers[next - 1] + 1)
            {
                next++;
            }
            ranges.Add(next - first == 1 ? $"{numbers[first]}" : $"{numbers[first]}…{numbers[next - 1]}");
        }
        return $"{{{string.Join(",", ranges)}}}";
    }

    /// <summary>A name with a NUL for each number that stands alone between dots, and those numbers.</summary>
    private sealed record NumberedName(string Text, string[] Numbers)
    {
        public NumberedName With(int place, string number) => this with { Numbers = [.. Numbers[..place], number, .. Numbers[(place + 1)..]] };

        public override string ToString()
        {
            string[] pieces = Text.Split('\0');
            return pieces[0] + string.Concat(Numbers.Select((number, i) => number + pieces[i + 1]));
        }
    }

    // No more digits than an int has for certain.
    [GeneratedRegex(@"(?<=\.)[0-9]{1,9}(?=\.)", RegexOptions.CultureInvariant)]
    private static partial Regex Number();
}
