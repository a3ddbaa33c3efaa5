using System.Buffers;
using System.Runtime.ExceptionServices;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// Finds out which zeros of a matrix can be left out. What a dense matrix has at its very beginning, and in a sample of its rows, says no, so that only sparse ones
/// are read.
/// </summary>
/// <param name="Sparsity">Which.</param>
/// <param name="Kept">What is left where that is unstructured, otherwise null.</param>
internal readonly record struct CodeSurvey(CodeSparsity Sparsity, KeptCodes? Kept)
{
    // The parts of 8-bit and 4-bit codes up to which leaving out the others was measured to be faster with one token.
    private const double MostKept8 = 0.52, MostKept4 = 0.33;

    /// <summary>Reads the codes of a row as they are packed. Several threads read at once.</summary>
    public delegate void RowReader(int row, Span<byte> codes);

    /// <summary>Looks at a matrix in a block format whose offset is the code of zero.</summary>
    /// <param name="source">The matrix.</param>
    /// <param name="rows">Rows that are wanted of it.</param>
    /// <param name="inputs">Columns.</param>
    /// <param name="bits">Bits of a packed code.</param>
    public static unsafe CodeSurvey Of<TFormat>(WeightRows source, int rows, int inputs, int bits)
        where TFormat : IBlockFormat
    {
        TensorView tensor = source.Tensor;
        DTypeInfo info = tensor.DType.Info();
        return Of(Read, rows, inputs, bits, (byte)(1 << TFormat.OffsetShift));

        void Read(int row, Span<byte> codes)
        {
            fixed (byte* blocks = tensor.Row(source.Row(row)), target = codes)
            {
                for (int block = 0; block < inputs / info.BlockElements; block++)
                {
                    TFormat.ReadCodes(blocks + block * (long)info.BlockBytes, target + block * info.BlockElements);
                }
            }
        }
    }

    /// <summary>Looks at a matrix.</summary>
    /// <param name="read">Reads a row.</param>
    /// <param name="rows">Rows.</param>
    /// <param name="inputs">Columns.</param>
    /// <param name="bits">Bits of a packed code, 4 or 8.</param>
    /// <param name="zero">The code of zero.</param>
    public static CodeSurvey Of(RowReader read, int rows, int inputs, int bits, byte zero)
    {
        if (IsTwoOfFour(read, rows, inputs, zero))
        {
            return new CodeSurvey(CodeSparsity.TwoOfFour, null);
        }
        return Unstructured(read, rows, inputs, bits, zero) is { } kept ? new CodeSurvey(CodeSparsity.Unstructured, kept) : default;
    }

    /// <summary>Every row has at most two of every four neighbours other than zero, and one code is.</summary>
    public static bool IsTwoOfFour(RowReader read, int rows, int inputs, byte zero)
    {
        var codes = new byte[inputs];
        bool any = false;
        for (int row = 0; row < rows; row++)
        {
            read(row, codes);
            if (!SparseGroups.Conform(codes, zero))
            {
                return false;
            }
            any = any || codes.AsSpan().ContainsAnyExcept(zero);
        }
        return any;
    }

    /// <summary>What is left without the codes of zero, wherever these are; null where leaving them out does not pay.</summary>
    public static KeptCodes? Unstructured(RowReader read, int rows, int inputs, int bits, byte zero)
    {
        var codes = new byte[inputs];
        double most = bits == 8 ? MostKept8 : MostKept4;
        bool gains = MatmulInstructionSupport.Best >= MatmulInstructions.Avx512Vnni && MatmulInstructionSupport.Assembles(CodeSparsity.Unstructured);
        if (!gains || !DensitySample.Allows(rows, inputs, most, CountKept))
        {
            return null;
        }
        KeptCodes kept = Count(read, rows, inputs, bits, zero);
        return kept.Part > 0 && kept.Part <= most ? kept : null;

        int CountKept(int row)
        {
            read(row, codes);
            return inputs - codes.AsSpan().Count(zero);
        }
    }

    private static KeptCodes Count(RowReader read, int rows, int inputs, int bits, byte zero)
    {
        var panelBytes = new long[PackedMatrix.PanelsOf(rows)];
        long kept = 0;
        try
        {
            Parallel.For(0, panelBytes.Length, panel =>
            {
                (panelBytes[panel], int ofPanel) = CountPanel(read, panel, rows, inputs, bits, zero);
                Interlocked.Add(ref kept, ofPanel);
            });
        }
        catch (AggregateException exception) when (exception.InnerException is EngineException inner)
        {
            ExceptionDispatchInfo.Throw(inner);
        }
        return new KeptCodes(panelBytes, kept / ((double)rows * inputs));
    }

    private static unsafe (long Bytes, int Kept) CountPanel(RowReader read, int panel, int rows, int inputs, int bits, byte zero)
    {
        int blocks = ActivationLayout.Blocks(inputs), width = blocks * ActivationLayout.BlockInputs, size = Panel.Rows * width;
        byte[] codes = ArrayPool<byte>.Shared.Rent(size);
        Array.Fill(codes, zero, 0, size); // Rows and columns past the last.
        for (int row = 0; row < Math.Min(Panel.Rows, rows - panel * Panel.Rows); row++)
        {
            read(panel * Panel.Rows + row, codes.AsSpan(row * width, inputs));
        }
        byte* block = stackalloc byte[Panel.Rows * ActivationLayout.BlockInputs];
        long bytes = 0;
        for (int i = 0; i < blocks; i++)
        {
            for (int row = 0; row < Panel.Rows; row++)
            {
                codes.AsSpan(row * width + i * ActivationLayout.BlockInputs, ActivationLayout.BlockInputs)
                    .CopyTo(new Span<byte>(block + row * ActivationLayout.BlockInputs, ActivationLayout.BlockInputs));
            }
            bytes += MaskedGroups.PackedBytes(block, bits, zero);
        }
        int kept = size - codes.AsSpan(0, size).Count(zero);
        ArrayPool<byte>.Shared.Return(codes);
        return (bytes, kept);
    }
}
