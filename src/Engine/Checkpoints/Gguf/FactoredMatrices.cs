using Engine.Checkpoints.Codecs;
using Engine.Checkpoints.Coded;

namespace Engine.Checkpoints.Gguf;

/// <summary>
/// Matrices in NVFP4 that have a factor beside them: llama.cpp multiplies what <c>X.weight</c> gives by <c>X.scale</c>, of a stack of experts each by its own. Here
/// the scales of groups are multiplied, once in float32. <c>X.input_scale</c> is for rounding activations to four bits, and is not read.
/// </summary>
internal static class FactoredMatrices
{
    private const string Weight = ".weight", Factor = ".scale", InputFactor = ".input_scale";

    /// <summary>The weight in NVFP4 that a tensor belongs to as a factor, and whether it is the weight's own; null where it is none.</summary>
    public static (string Weight, bool Multiplies)? Find(string name, Checkpoint source)
    {
        string? ending = name.EndsWith(InputFactor, StringComparison.Ordinal) ? InputFactor : name.EndsWith(Factor, StringComparison.Ordinal) ? Factor : null;
        string weight = ending is null ? "" : name[..^ending.Length] + Weight;
        return ending is not null && source.TryGetOutline(weight, out TensorView? tensor) && tensor.DType == DType.NVFP4
            ? (weight, ending == Factor)
            : null;
    }

    /// <summary>The matrix, or stack of matrices, with its factor.</summary>
    /// <param name="source">The file's own tensors.</param>
    /// <param name="weight">The weight's name there.</param>
    /// <param name="name">What it is called here.</param>
    /// <exception cref="EngineException">The factor has another type or shape, or is 0 or not finite; or the weight is no matrix.</exception>
    public static TensorView Read(Checkpoint source, string weight, string name)
    {
        TensorView tensor = source[weight], factors = source[weight[..^Weight.Length] + Factor];
        if (tensor.Shape.Length is not (2 or 3) || tensor.Rows < 1 || tensor.Columns > int.MaxValue)
        {
            throw new EngineException($"expected a matrix or a stack of them, as there is a factor beside it; found {tensor.DescribeShape()}", source.Path, weight);
        }
        long matrices = tensor.Shape.Length == 3 ? tensor.Shape[0] : 1, rows = tensor.Rows / matrices;
        if (factors.DType != DType.F32 || factors.ElementCount != matrices || factors.Shape.Length > 1)
        {
            throw new EngineException(
                $"expected F32 [{matrices}], a factor for each matrix of {weight}; found {factors.DType} {factors.DescribeShape()}", source.Path, factors.Name);
        }
        float[] values = factors.ToFloats();
        if (Array.FindIndex(values, static value => !float.IsFinite(value) || value == 0) is >= 0 and var bad)
        {
            throw new EngineException($"expected finite numbers other than 0; found {values[bad]} at {bad}", source.Path, factors.Name);
        }
        var matrix = new StoredMatrix
        {
            Name = name,
            Format = "NVFP4",
            Rows = tensor.Rows,
            Columns = (int)tensor.Columns,
            Bits = 4,
            Numbers = CodeNumbers.E2M1,
            Table = CodeTables.Of(CodeNumbers.E2M1),
            GroupColumns = NVFP4Format.GroupElements,
            Zero = 0,
            Codes = (row, codes) =>
            {
                ReadOnlySpan<byte> blocks = tensor.Row(row);
                for (int first = 0; first < codes.Length; first += NVFP4Format.BlockElements, blocks = blocks[NVFP4Format.BlockBytes..])
                {
                    NVFP4Format.ReadCodes(blocks, codes[first..]);
                }
            },
            Scales = (row, scales, _) =>
            {
                ReadOnlySpan<byte> blocks = tensor.Row(row);
                float factor = values[row / rows];
                for (int group = 0; group < scales.Length; group++)
                {
                    scales[group] = 2 * NVFP4Format.HalfScale(blocks[group / NVFP4Format.Groups * NVFP4Format.BlockBytes + group % NVFP4Format.Groups]) * factor;
                }
            },
            Parts = [tensor, factors],
        };
        return TensorView.Of(matrix, matrix.Parts) with { Shape = tensor.Shape };
    }
}
