using System.Text.RegularExpressions;
using Engine.Checkpoints.Codecs;

namespace Engine.Checkpoints.Writing;

/// <summary>
/// Brings gpt-oss' experts, which Hugging Face's folders have with gate and up in turn, to the tensors that GGUF has of them:
/// <c>blk.N.ffn_{gate,up,down}_exps.weight</c> [experts, outputs, inputs] and <c>.bias</c> [experts, outputs]. Floats [experts, inputs, outputs] are transposed;
/// MXFP4, whose codes [experts, outputs, inputs / 32, 16] and scales [experts, outputs, inputs / 32] lie apart, becomes ggml's blocks bit by bit.
/// </summary>
/// <param name="path">The file that they come from, for messages.</param>
/// <param name="experts">How many a layer has.</param>
/// <param name="hidden">Their inputs and outputs.</param>
/// <param name="width">Their inner width.</param>
internal sealed partial class InterleavedStacks(string path, long experts, long hidden, long width)
{
    private const int CodeBytes = MXFP4Format.BlockElements / 2;

    private readonly OrderedDictionary<(string Layer, string Kind), Dictionary<string, TensorView>> linears = [];

    /// <summary>Takes a tensor if it belongs to experts.</summary>
    /// <param name="name">Its name in Hugging Face's vocabulary.</param>
    /// <param name="tensor">The tensor.</param>
    public bool TryAdd(string name, TensorView tensor)
    {
        if (Linear().Match(name) is not { Success: true } match)
            return false;
        (string, string) key = (match.Groups["layer"].Value, match.Groups["kind"].Value);
        if (!linears.TryGetValue(key, out Dictionary<string, TensorView>? parts))
            linears.Add(key, parts = []);
        parts.Add(match.Groups["part"].Value, tensor);
        return true;
    }

    /// <summary>The tensors of all layers.</summary>
    /// <param name="typeOf">How floats of this name and shape are stored.</param>
    /// <exception cref="EngineException">A shape is not that of the experts, or codes have no scales.</exception>
    public IEnumerable<TensorSource> Sources(Func<string, long[], DType> typeOf)
    {
        foreach (((string layer, string kind), Dictionary<string, TensorView> parts) in linears)
        {
            (string Name, int First)[] turns = kind == "down" ? [("down", 0)] : [("gate", 0), ("up", 1)];
            long outputs = kind == "down" ? hidden : turns.Length * width, inputs = kind == "down" ? width : hidden;
            foreach ((string turn, int first) in turns)
            {
                string name = $"blk.{layer}.ffn_{turn}_exps";
                foreach ((string part, TensorView tensor) in parts.Where(static pair => pair.Key != "_scales"))
                {
                    yield return part switch
                    {
                        "_bias" => Bias(name + ".bias", tensor, outputs, first, turns.Length),
                        "_blocks" => Blocks(name + ".weight", tensor, Scales(parts, tensor), outputs, inputs, first, turns.Length),
                        _ => Floats(name + ".weight", tensor, outputs, inputs, first, turns.Length, typeOf),
                    };
                }
            }
        }
    }

    private TensorSource Bias(string name, TensorView tensor, long outputs, int first, int step)
    {
        Require(tensor, experts, outputs);
        tensor.RequireFinite();
        return TensorSource.FromValues(name, [experts, outputs / step], [.. tensor.ToFloats().Where((_, at) => at % step == first)]);
    }

    private TensorSource Floats(string name, TensorView tensor, long outputs, long inputs, int first, int step, Func<string, long[], DType> typeOf)
    {
        Require(tensor, experts, inputs, outputs);
        long[] shape = [experts, outputs / step, inputs];
        DType dtype = typeOf(name, shape);
        return new TensorSource(name, dtype, shape, stream =>
        {
            for (long expert = 0; expert < experts; expert++)
                TensorSource.Convert(TransposedTensor.Columns(tensor.SliceRows(expert * inputs, inputs), first, step), dtype).WriteTo(stream);
        });
    }

    private TensorSource Blocks(string name, TensorView codes, TensorView scales, long outputs, long inputs, int first, int step)
    {
        long blocks = inputs / MXFP4Format.BlockElements;
        Require(codes, experts, outputs, blocks, CodeBytes);
        Require(scales, experts, outputs, blocks);
        return new TensorSource(name, DType.MXFP4, [experts, outputs / step, inputs], stream =>
        {
            var joined = new byte[blocks * MXFP4Format.BlockBytes];
            for (long row = first; row < experts * outputs; row += step)
            {
                ReadOnlySpan<byte> exponents = scales.Row(row);
                if (exponents.IndexOf(MXFP4Format.NaNScale) is >= 0 and var column)
                    throw new EngineException($"the scale at row {row}, column {column} is NaN", path, scales.Name);
                MXFP4Format.Join(codes.Slice(row * blocks * CodeBytes, (int)blocks * CodeBytes), exponents, joined);
                stream.Write(joined);
            }
            codes.Evict();
        });
    }

    private TensorView Scales(Dictionary<string, TensorView> parts, TensorView codes) =>
        parts.GetValueOrDefault("_scales") ?? throw new EngineException("the tensor of its scales is missing", path, codes.Name);

    private void Require(TensorView tensor, params ReadOnlySpan<long> shape)
    {
        if (!shape.SequenceEqual(tensor.Shape))
            throw new EngineException($"expected shape [{string.Join(", ", shape.ToArray())}], found {tensor.DescribeShape()}", path, tensor.Name);
    }

    [GeneratedRegex(@"^model\.layers\.(?<layer>[0-9]+)\.mlp\.experts\.(?<kind>gate_up|down)_proj(?<part>(_blocks|_scales|_bias)?)$", RegexOptions.CultureInvariant)]
    private static partial Regex Linear();
}
