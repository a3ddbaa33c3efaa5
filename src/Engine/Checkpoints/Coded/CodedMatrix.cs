using System.Buffers;
using System.Collections.Immutable;

namespace Engine.Checkpoints;

/// <summary>
/// A quantized matrix [rows, columns] of codes whose scales are stored apart from them: what compressed-tensors, GPTQ, AWQ, bitsandbytes and FP8 files have in
/// common. With g = place / <see cref="GroupColumns"/>, the weight at a row and a place is
/// <c>(number(code[row, place]) − zero[row, g]) · scale[row, g]</c>, and place p holds the weights of column <see cref="Order"/>[p]. A reader per format knows how
/// codes, scales and zero points are packed; everyone else asks here, a row at a time, so that nothing is ever expanded as a whole.
/// <para>Reading is safe from several threads at once.</para>
/// </summary>
public abstract class CodedMatrix
{
    /// <summary>The weight's name: of <c>M.weight_packed</c> and its companions, <c>M.weight</c>.</summary>
    public required string Name { get; init; }

    /// <summary>What the file's format calls itself and how many bits it has, for people: <c>GPTQ 4 bit</c>.</summary>
    public required string Format { get; init; }

    /// <summary>Outputs.</summary>
    public required long Rows { get; init; }

    /// <summary>Inputs.</summary>
    public required int Columns { get; init; }

    /// <summary>Bits of a code, 1 … 8; codes are below 2^bits.</summary>
    public required int Bits { get; init; }

    /// <summary>Which numbers codes stand for.</summary>
    public required CodeNumbers Numbers { get; init; }

    /// <summary>The number of each code where <see cref="Numbers"/> is not <see cref="CodeNumbers.Integer"/>, [2^bits]; else empty.</summary>
    public ImmutableArray<float> Table { get; init; } = [];

    /// <summary>Neighbouring places that share a scale and a zero point, at least 1; the last group of a row may have fewer.</summary>
    public required int GroupColumns { get; init; }

    /// <summary>
    /// Zero point of all groups of all rows, in units of codes: 2^(bits − 1) where integers are symmetric, 0 for floats; null where <see cref="ReadScales"/> says it.
    /// </summary>
    public required int? Zero { get; init; }

    /// <summary>[columns]: which column each place holds, each once; empty where places are columns.</summary>
    public ImmutableArray<int> Order { get; init; } = [];

    /// <summary>The tensors that the matrix is stored in, codes first.</summary>
    public required ImmutableArray<TensorView> Parts { get; init; }

    /// <summary>Groups of a row.</summary>
    public int Groups => (Columns + GroupColumns - 1) / GroupColumns;

    /// <summary>Bytes of all parts.</summary>
    public virtual long StoredBytes => Parts.Sum(static part => part.ByteLength);

    /// <summary>Reads the codes of a row, place by place.</summary>
    /// <param name="row">0 … <see cref="Rows"/> − 1.</param>
    /// <param name="codes">[<see cref="Columns"/>].</param>
    public abstract void ReadCodes(long row, Span<byte> codes);

    /// <summary>
    /// Reads the codes of rows that follow each other: where a format has the outputs side by side, faster than one row after the other.
    /// </summary>
    /// <param name="firstRow">The first of them.</param>
    /// <param name="rows">How many.</param>
    /// <param name="codes">[<paramref name="rows"/>, <paramref name="stride"/>]; of each row <see cref="Columns"/> are written.</param>
    /// <param name="stride">From a row to the next, at least <see cref="Columns"/>.</param>
    public virtual void ReadCodes(long firstRow, int rows, Span<byte> codes, int stride)
    {
        for (int row = 0; row < rows; row++)
        {
            ReadCodes(firstRow + row, codes.Slice(row * stride, Columns));
        }
    }

    /// <summary>Reads the scales of a row, and its zero points where <see cref="Zero"/> is null.</summary>
    /// <param name="row">0 … <see cref="Rows"/> − 1.</param>
    /// <param name="scales">[<see cref="Groups"/>].</param>
    /// <param name="zeros">[<see cref="Groups"/>], integers in units of codes; left alone where there is one zero for all.</param>
    public abstract void ReadScales(long row, Span<float> scales, Span<int> zeros);

    /// <summary>Decodes a row, each weight one subtraction and one product in float32.</summary>
    /// <param name="row">0 … <see cref="Rows"/> − 1.</param>
    /// <param name="destination">[<see cref="Columns"/>], by column.</param>
    public void DecodeRow(long row, Span<float> destination)
    {
        if (destination.Length != Columns)
        {
            throw new ArgumentException($"room for {destination.Length} of {Columns} weights", nameof(destination));
        }
        byte[] codes = ArrayPool<byte>.Shared.Rent(Columns);
        float[] scales = ArrayPool<float>.Shared.Rent(Groups);
        int[] zeros = ArrayPool<int>.Shared.Rent(Groups);
        ReadCodes(row, codes.AsSpan(0, Columns));
        ReadScales(row, scales.AsSpan(0, Groups), zeros.AsSpan(0, Groups));
        for (int group = 0, place = 0; group < Groups; group++)
        {
            float scale = scales[group];
            int zero = Zero ?? zeros[group];
            for (int end = Math.Min(Columns, place + GroupColumns); place < end; place++)
            {
                float number = Table.IsEmpty ? codes[place] - zero : Table[codes[place]] - zero;
                destination[Order.IsEmpty ? place : Order[place]] = number * scale;
            }
        }
        ArrayPool<byte>.Shared.Return(codes);
        ArrayPool<float>.Shared.Return(scales);
        ArrayPool<int>.Shared.Return(zeros);
    }

    /// <summary>Checks that a row's scales, and the numbers of its codes, are finite.</summary>
    /// <exception cref="EngineException">One is not; the message names the tensor and the place.</exception>
    public void RequireFinite(long row)
    {
        var scales = new float[Groups];
        ReadScales(row, scales, new int[Groups]);
        if (Array.FindIndex(scales, static scale => !float.IsFinite(scale)) is >= 0 and var group)
        {
            throw new EngineException($"the scale at row {row}, group {group} is NaN or infinite", Parts[0].File(), Name);
        }
        if (!Table.Any(static number => !float.IsFinite(number)))
        {
            return;
        }
        var codes = new byte[Columns];
        ReadCodes(row, codes);
        if (Array.FindIndex(codes, code => !float.IsFinite(Table[code])) is >= 0 and var place)
        {
            throw new EngineException($"the value at row {row}, column {place} is NaN or infinite", Parts[0].File(), Name);
        }
    }

    /// <summary>Both are stored alike, in equal bytes.</summary>
    public virtual bool ContentEquals(CodedMatrix other) =>
        Format == other.Format && Rows == other.Rows && Columns == other.Columns && Bits == other.Bits && GroupColumns == other.GroupColumns
        && Zero == other.Zero && Parts.Length == other.Parts.Length
        && Parts.Zip(other.Parts).All(static pair => pair.First.ContentEquals(pair.Second));
}
