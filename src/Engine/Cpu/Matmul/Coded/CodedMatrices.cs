using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// Chooses how a <see cref="CodedMatrix"/> is held. Integers and 4-bit floats with scales for whole or half blocks stay codes and meet quantized activations;
/// other tables stay codes and meet float32 activations; whatever is neither is decoded to float32, which <see cref="PackedMatrix.Bytes"/> shows.
/// </summary>
internal static class CodedMatrices
{
    /// <summary>A matrix for the wanted rows, not packed yet.</summary>
    /// <exception cref="EngineException">The matrix is wanted transposed, its order is no permutation, or a scale is not finite.</exception>
    public static PackedMatrix Create(WeightRows source, int rows, int inputs, int firstOutput)
    {
        CodedMatrix coded = source.Tensor.Coded!;
        if (source.Transposed)
        {
            throw new EngineException("codes stored as [inputs, outputs] cannot be multiplied on the CPU", coded.Parts[0].File(), coded.Name);
        }
        RequireOrder(coded);
        int groupInputs = GroupInputs(coded);
        if (groupInputs > 0 && coded.Numbers == CodeNumbers.Integer)
        {
            ScaleSurvey survey = ScaleSurvey.Of(source, rows, 1);
            if (IntegerPacking(coded, survey.Zeros, groupInputs < ActivationLayout.BlockInputs) is var (bits, packing, minima))
            {
                if (SparsePacking(coded, survey.Zeros, bits) is var (sparseBits, moving)
                    && CodeSurvey.IsTwoOfFour(PackedRows.Of(source, moving), rows, inputs, (byte)moving.Offset))
                {
                    var sparse = new Shape(rows, inputs, firstOutput, coded, moving, survey, groupInputs, false, null);
                    return sparseBits == 4 ? Hold<SparseCodes4>(sparse) : Hold<SparseCodes8>(sparse);
                }
                KeptCodes? kept = bits is 4 or 8 && packing.MovesCodes && groupInputs >= ActivationLayout.BlockInputs
                    ? CodeSurvey.Unstructured(PackedRows.Of(source, packing), rows, inputs, bits, (byte)packing.Offset) : null;
                var shape = new Shape(rows, inputs, firstOutput, coded, packing, survey, groupInputs, minima, kept);
                return bits switch
                {
                    1 => Hold<Codes1>(shape),
                    2 => Hold<Codes2>(shape),
                    3 => Hold<Codes3>(shape),
                    4 when kept is not null => Hold<MaskedCodes4>(shape),
                    4 => Hold<Codes4>(shape),
                    5 => Hold<Codes5>(shape),
                    6 => Hold<Codes6>(shape),
                    8 when kept is not null => Hold<MaskedCodes8>(shape),
                    _ => Hold<Codes8>(shape),
                };
            }
        }
        else if (groupInputs > 0 && coded is { Numbers: CodeNumbers.E2M1, Bits: 4, Zero: 0 })
        {
            // Codes unpack to twice the number.
            var packing = new CodePacking(E2M1Table.OffsetShift, false, 0.5f);
            ScaleSurvey survey = ScaleSurvey.Of(source, rows, packing.Multiplier);
            if (survey.Exactly)
            {
                var shape = new Shape(rows, inputs, firstOutput, coded, packing, survey, groupInputs, false, null);
                return CodeSurvey.IsTwoOfFour(PackedRows.Of(source, packing), rows, inputs, E2M1Table.Zero) ? Hold<SparseCodesE2M1>(shape) : Hold<CodesE2M1>(shape);
            }
        }
        return CreateFloats(coded, rows, inputs, firstOutput);
    }

    /// <summary>Numbers of a table with scales for runs of columns; or all decoded.</summary>
    private static PackedMatrix CreateFloats(CodedMatrix coded, int rows, int inputs, int firstOutput)
    {
        const int Narrowest = 8; // With a scale in 4 bytes, a nibble takes 8 bits then.
        int group = Math.Min(coded.GroupColumns, inputs);
        bool suits = coded.Numbers != CodeNumbers.Integer && coded.Zero == 0 && coded.Order.IsEmpty && group >= Math.Min(Narrowest, inputs);
        return coded.Numbers switch
        {
            CodeNumbers.E4M3 when suits => new CodedFloatMatrix<FloatE4M3>(rows, inputs, group, coded.Table.AsSpan()) { FirstOutput = firstOutput },
            CodeNumbers.E5M2 when suits => new CodedFloatMatrix<FloatE5M2>(rows, inputs, group, coded.Table.AsSpan()) { FirstOutput = firstOutput },
            CodeNumbers.E2M1 or CodeNumbers.Table when suits && coded.Bits <= 4 && (group % 2 == 0 || group == inputs) =>
                new CodedFloatMatrix<TableNibbles>(rows, inputs, group, coded.Table.AsSpan()) { FirstOutput = firstOutput },
            _ => new DecodedMatrix(rows, inputs) { FirstOutput = firstOutput },
        };
    }

    /// <summary>Every place holds another of the columns: kernels gather inputs by the order without looking.</summary>
    private static void RequireOrder(CodedMatrix coded)
    {
        if (coded.Order.IsEmpty)
        {
            return;
        }
        var held = new bool[coded.Columns];
        bool permutation = coded.Order.Length == coded.Columns;
        foreach (int column in coded.Order)
        {
            permutation = permutation && (uint)column < (uint)held.Length && !held[column];
            if (!permutation)
            {
                throw new EngineException($"the order of its {coded.Columns} columns does not have each of them once", coded.Parts[0].File(), coded.Name);
            }
            held[column] = true;
        }
    }

    /// <summary>Inputs that a scale covers as it is packed, 16, 32, 64 or 128; 0 where groups do not end with half blocks.</summary>
    private static int GroupInputs(CodedMatrix coded)
    {
        const int Widest = 4 * ActivationLayout.BlockInputs, Narrowest = ActivationLayout.BlockInputs / 2;
        if (coded.GroupColumns >= coded.Columns)
        {
            return Widest;
        }
        for (int inputs = Widest; inputs >= Narrowest; inputs /= 2)
        {
            if (coded.GroupColumns % inputs == 0)
            {
                return inputs;
            }
        }
        return 0;
    }

    /// <summary>
    /// Bits of a packed code, and what becomes of zero points: where a bit is to spare they move the codes, otherwise a block has a minimum. Null where neither
    /// is possible: half blocks have no minima, and zero points may be beyond a byte.
    /// </summary>
    private static (int Bits, CodePacking Packing, bool Minima)? IntegerPacking(CodedMatrix coded, (int Least, int Largest) zeros, bool halfBlocks)
    {
        ReadOnlySpan<int> widths = [1, 2, 3, 4, 5, 6, 8];
        foreach (int bits in widths)
        {
            if (bits < coded.Bits)
            {
                continue;
            }
            if (zeros == (0, 0))
            {
                return (bits, new CodePacking(0, false), false);
            }
            if (Moving(coded, zeros, bits) is { } moving)
            {
                return (bits, moving, false);
            }
            var staying = new CodePacking(bits - 1, false);
            if (!halfBlocks && zeros.Least - (long)staying.Offset >= sbyte.MinValue && zeros.Largest - (long)staying.Offset <= sbyte.MaxValue)
            {
                return (bits, staying, true);
            }
        }
        return null;
    }

    /// <summary>
    /// The width of codes of which two of four are kept beside their places, and how zero points move them; null where that takes no fewer bits than
    /// <paramref name="denseBits"/>, or would need minima.
    /// </summary>
    private static (int Bits, CodePacking Packing)? SparsePacking(CodedMatrix coded, (int Least, int Largest) zeros, int denseBits)
    {
        ReadOnlySpan<int> widths = [4, 8];
        foreach (int bits in widths)
        {
            bool smaller = BlockKernel.CodeBytes(bits, CodeSparsity.TwoOfFour) < BlockKernel.CodeBytes(denseBits, CodeSparsity.None);
            if (bits >= coded.Bits && smaller && Moving(coded, zeros, bits) is { } moving)
            {
                return (bits, moving);
            }
        }
        return null;
    }

    /// <summary>Zero points go into codes of a width, whose offset is half of what they count; null where these then do not hold all of them.</summary>
    private static CodePacking? Moving(CodedMatrix coded, (int Least, int Largest) zeros, int bits)
    {
        var packing = new CodePacking(bits - 1, true);
        long largestCode = (1 << coded.Bits) - 1;
        return zeros.Largest <= packing.Offset && largestCode + packing.Offset - zeros.Least < 1 << bits ? packing : null;
    }

    private static PackedMatrix Hold<TCodes>(in Shape shape)
        where TCodes : ICodes
    {
        bool halfBlocks = shape.GroupInputs < ActivationLayout.BlockInputs;
        if (TCodes.Table != 0 && shape.Survey.Powers && shape.GroupInputs == ActivationLayout.BlockInputs)
        {
            return Hold<TCodes, BlockPowers>(shape);
        }
        if (halfBlocks && shape.Survey.SmallFloatFactor() is { } factor)
        {
            return Hold<TCodes, SmallFloatScales>(shape with { Packing = shape.Packing with { Factor = factor } });
        }
        return shape.Survey.BFloat16 ? HoldValues<TCodes, BFloat16Scale>(shape)
            : shape.Survey.Float16 ? HoldValues<TCodes, Float16Scale>(shape)
            : HoldValues<TCodes, Float32Scale>(shape);
    }

    private static PackedMatrix HoldValues<TCodes, TValue>(in Shape shape)
        where TCodes : ICodes
        where TValue : IScaleValue => (shape.GroupInputs / ActivationLayout.BlockInputs, shape.Minima) switch
        {
            (0, _) => Hold<TCodes, HalfBlockScales<TValue>>(shape),
            (1, false) => Hold<TCodes, GroupScales<TValue, OneBlock>>(shape),
            (2, false) => Hold<TCodes, GroupScales<TValue, TwoBlocks>>(shape),
            (_, false) => Hold<TCodes, GroupScales<TValue, FourBlocks>>(shape),
            (1, true) => Hold<TCodes, GroupScalesAndZeros<TValue, OneBlock>>(shape),
            (2, true) => Hold<TCodes, GroupScalesAndZeros<TValue, TwoBlocks>>(shape),
            (_, true) => Hold<TCodes, GroupScalesAndZeros<TValue, FourBlocks>>(shape),
        };

    private static CodedBlockMatrix<TCodes, TScales> Hold<TCodes, TScales>(in Shape shape)
        where TCodes : ICodes
        where TScales : IGroupScales =>
        new(shape.Rows, shape.Inputs, shape.Packing, shape.Kept) { FirstOutput = shape.FirstOutput, Order = shape.Coded.Order };

    /// <summary>What a block matrix is made from.</summary>
    private readonly record struct Shape(
        int Rows, int Inputs, int FirstOutput, CodedMatrix Coded, CodePacking Packing, ScaleSurvey Survey, int GroupInputs, bool Minima,
        KeptCodes? Kept);
}
