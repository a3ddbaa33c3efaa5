using System.Runtime.CompilerServices;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>Checks the tensors of a <see cref="LinearPart"/> and packs them.</summary>
internal static unsafe class MatrixLoader
{
    // Mapped pages are let go after every run of this size, so that packing holds the packed copy and little of the file.
    private const long RunBytes = 16 << 20;

    /// <summary>Packs the matrix of a part, or the subset of its rows that the part has, and the bias of a whole one.</summary>
    /// <exception cref="EngineException">The tensor is missing or does not fit.</exception>
    public static PackedMatrix Load(
        LinearPart part, int inputs, int firstOutput, Checkpoint checkpoint, ThreadTeam team, ActivationPrecision activations)
    {
        using WeightRows whole = WeightRows.Open(part.Weight!, part.Outputs, checkpoint);
        RequireShape(whole, part.Outputs, inputs, checkpoint);
        using WeightRows? kept = part.Rows is { } rows ? whole.Gather(rows, part.Outputs, checkpoint) : null;
        WeightRows source = kept ?? whole;
        PackedMatrix matrix = Create(source, part.KeptRows, inputs, firstOutput, checkpoint, activations);
        try
        {
            matrix.Bias = part.Bias is null ? null : ReadVector(checkpoint, part.Bias, part.Outputs);
            Pack(matrix, source, team);
            return matrix;
        }
        catch
        {
            matrix.Dispose();
            throw;
        }
    }

    /// <summary>
    /// How a tensor would be held as a matrix: of one with three dimensions, the first of its matrices. Null for what is no matrix or cannot be multiplied.
    /// </summary>
    public static string? FormOf(TensorView tensor, Checkpoint checkpoint)
    {
        if (tensor.Shape.Length is not (2 or 3) || tensor.ElementCount == 0 || tensor.Columns > int.MaxValue || tensor.Shape[^2] > int.MaxValue)
        {
            return null;
        }
        try
        {
            int rows = (int)tensor.Shape[^2];
            using WeightRows source = WeightRows.Open(new WeightRef(tensor.Name) { Slice = tensor.Shape.Length == 3 ? 0 : null }, rows, checkpoint);
            using PackedMatrix matrix = Create(source, rows, (int)tensor.Columns, 0, checkpoint, ActivationPrecision.Float32);
            return matrix.Form;
        }
        catch (EngineException)
        {
            return null; // Whoever loads it is told why.
        }
    }

    private static void RequireShape(WeightRows source, int outputs, int inputs, Checkpoint checkpoint)
    {
        TensorView tensor = source.Tensor;
        long rows = source.Transposed ? tensor.Columns : tensor.Rows, columns = source.Transposed ? tensor.Rows : tensor.Columns;
        long span = source.Extent(outputs);
        if (tensor.Shape.Length < 2 || columns != inputs || source.FirstRow < 0 || source.RowStep < 1 || source.FirstRow > rows - span)
        {
            string expected = source.Transposed
                ? $"[{inputs}, {source.FirstRow + span} or more]"
                : $"[{source.FirstRow + span} or more, {inputs}]";
            throw new EngineException($"expected the shape {expected}, found {tensor.DescribeShape()}", checkpoint.Path, tensor.Name);
        }
        int block = tensor.DType.Info().BlockElements;
        if (inputs % block != 0)
        {
            throw new EngineException($"rows of {inputs} elements are not whole blocks of {block} ({tensor.DType})", checkpoint.Path, tensor.Name);
        }
    }

    private static PackedMatrix Create(
        WeightRows source, int rows, int inputs, int firstOutput, Checkpoint checkpoint, ActivationPrecision activations)
    {
        TensorView tensor = source.Tensor;
        bool transposed = source.Transposed;
        return (tensor.DType, transposed) switch
        {
            (DType.Coded, _) => CodedMatrices.Create(source, rows, inputs, firstOutput),
            (DType.Q8_0, false) => CodeSurvey.Of<Q8_0>(source, rows, inputs, 8) switch
            {
                { Sparsity: CodeSparsity.TwoOfFour } => new FileBlockMatrix<Q8_0, SparseCodes8, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
                { Kept: { } kept } => new FileBlockMatrix<Q8_0, MaskedCodes8, BlockScales>(rows, inputs, kept) { FirstOutput = firstOutput },
                _ => new FileBlockMatrix<Q8_0, Codes8, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            },
            (DType.Q4_0, false) => CodeSurvey.Of<Q4_0>(source, rows, inputs, 4) switch
            {
                { Sparsity: CodeSparsity.TwoOfFour } => new FileBlockMatrix<Q4_0, SparseCodes4, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
                { Kept: { } kept } => new FileBlockMatrix<Q4_0, MaskedCodes4, BlockScales>(rows, inputs, kept) { FirstOutput = firstOutput },
                _ => new FileBlockMatrix<Q4_0, Codes4, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            },
            (DType.Q4_1, false) => new FileBlockMatrix<Q4_1, Codes4, BlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q5_0, false) => new FileBlockMatrix<Q5_0, Codes5, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q5_1, false) => new FileBlockMatrix<Q5_1, Codes5, BlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q4_K, false) => new FileBlockMatrix<Q4_K, Codes4, SuperBlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q5_K, false) => new FileBlockMatrix<Q5_K, Codes5, SuperBlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q6_K, false) => new FileBlockMatrix<Q6_K, Codes6, SuperBlockHalfScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.MXFP4, false) => new FileBlockMatrix<MXFP4, CodesE2M1, BlockPowers>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q2_K, false) => new FileBlockMatrix<Q2_K, Codes2, SuperBlockHalfScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q3_K, false) => Grouped<Q3_KFormat, Codes3>(rows, inputs, firstOutput),
            (DType.IQ4_NL, false) => Grouped<IQ4_NLFormat, LookedUp<Codes4, IQ4_NLFormat>>(rows, inputs, firstOutput),
            (DType.IQ4_XS, false) => Grouped<IQ4_XSFormat, LookedUp<Codes4, IQ4_XSFormat>>(rows, inputs, firstOutput),
            (DType.IQ3_XXS, false) => Grouped<IQ3_XXSFormat, LookedUp<Codes4, IQ3_XXSFormat>>(rows, inputs, firstOutput),
            (DType.IQ3_S, false) => Grouped<IQ3_SFormat, LookedUp<Codes4, IQ3_SFormat>>(rows, inputs, firstOutput),
            (DType.IQ2_XXS, false) => Grouped<IQ2_XXSFormat, LookedUp<Codes3, IQ2_XXSFormat>>(rows, inputs, firstOutput),
            (DType.IQ2_XS, false) => Grouped<IQ2_XSFormat, LookedUp<Codes3, IQ2_XSFormat>>(rows, inputs, firstOutput),
            (DType.IQ2_S, false) => Grouped<IQ2_SFormat, LookedUp<Codes3, IQ2_SFormat>>(rows, inputs, firstOutput),
            (DType.IQ1_S, false) => Grouped<IQ1_SFormat, LookedUp<Codes3, IQ1_SFormat>>(rows, inputs, firstOutput),
            (DType.IQ1_M, false) => Grouped<IQ1_MFormat, LookedUp<Codes3, IQ1_MFormat>>(rows, inputs, firstOutput),
            (DType.TQ1_0, false) => Grouped<TQ1_0Format, LookedUp<Codes2, TQ1_0Format>>(rows, inputs, firstOutput),
            (DType.TQ2_0, false) => Grouped<TQ2_0Format, LookedUp<Codes2, TQ2_0Format>>(rows, inputs, firstOutput),
            (DType.Q2_0, false) => Grouped<Q2_0Format, LookedUp<Codes2, Q2_0Format>>(rows, inputs, firstOutput),
            (DType.Q1_0, false) => Grouped<Q1_0Format, LookedUp<Codes1, Q1_0Format>>(rows, inputs, firstOutput),
            (DType.NVFP4, false) => new FileBlockMatrix<NVFP4, CodesE2M1, HalfBlockSmallFloats>(rows, inputs) { FirstOutput = firstOutput },
            (DType.F16, false) when KeptElements.Of(source, rows, inputs) is { } kept =>
                new MaskedFloatMatrix<Float16>(rows, inputs, kept, false) { FirstOutput = firstOutput },
            (DType.BF16, false) when KeptElements.Of(source, rows, inputs) is { } kept =>
                new MaskedFloatMatrix<BFloat16>(rows, inputs, kept, activations == ActivationPrecision.BFloat16) { FirstOutput = firstOutput },
            (DType.F32, _) => new FloatMatrix<Float32>(rows, inputs) { FirstOutput = firstOutput },
            (DType.F16, _) => new FloatMatrix<Float16>(rows, inputs) { FirstOutput = firstOutput },
            (DType.BF16, _) => new FloatMatrix<BFloat16>(rows, inputs, activations == ActivationPrecision.BFloat16) { FirstOutput = firstOutput },
            _ => throw new EngineException(
                $"{tensor.DType}{(transposed ? " stored as [inputs, outputs]" : "")} cannot be multiplied on the CPU", checkpoint.Path, tensor.Name),
        };
    }

    private static FileBlockMatrix<GroupedBlocks<TFormat>, TCodes, GroupedScales<TFormat>> Grouped<TFormat, TCodes>(int rows, int inputs, int firstOutput)
        where TFormat : IGroupedFormat
        where TCodes : ICodes =>
        new(rows, inputs) { FirstOutput = firstOutput };

    private static void Pack(PackedMatrix matrix, WeightRows source, ThreadTeam team)
    {
        TensorView tensor = source.Tensor;
        if (source.Transposed)
        {
            tensor.RequireFinite(); // Panels are columns of the tensor then, and check nothing themselves.
        }
        long rowBytes = source.Transposed ? tensor.ByteLength / tensor.Columns : tensor.RowBytes;
        int step = (int)Math.Clamp(RunBytes / Math.Max(1, rowBytes * Panel.Rows), 1, Math.Max(1, matrix.Panels));
        for (int panel = 0; panel < matrix.Panels; panel += step)
        {
            var run = new PackRun
            {
                Matrix = matrix,
                Source = source,
                Next = panel,
                End = Math.Min(panel + step, matrix.Panels),
            };
            team.Run(&PackPanels, Unsafe.AsPointer(ref run));
            if (!source.Transposed && tensor.Coded is null && tensor.Owner is MappedFile file)
            {
                int rows = (int)Math.Min((long)step * Panel.Rows, matrix.Rows - (long)panel * Panel.Rows);
                file.Evict((nint)(tensor.Address + source.Row(panel * Panel.Rows) * rowBytes), source.Extent(rows) * rowBytes);
            }
        }
        if (matrix.Rows == tensor.Rows || source.Transposed || tensor.Coded is not null)
        {
            tensor.Evict();
        }
    }

    private static void PackPanels(void* state, int thread, int threads)
    {
        ref PackRun run = ref Unsafe.AsRef<PackRun>(state);
        for (int panel; (panel = Interlocked.Increment(ref run.Next) - 1) < run.End;)
        {
            run.Matrix.Pack(run.Source, panel);
        }
    }

    /// <summary>Reads a bias.</summary>
    /// <exception cref="EngineException">The tensor is missing, does not fit, or holds a number that is not finite.</exception>
    public static float[] ReadVector(Checkpoint checkpoint, WeightRef reference, int length)
    {
        TensorView tensor = checkpoint[reference.Tensor];
        long row = reference.Slice ?? 0, end = reference.FirstRow + (length == 0 ? 0 : (length - 1L) * reference.RowStep + 1);
        if (tensor.Shape.Length != (reference.Slice is null ? 1 : 2) || reference.Scales is not null || row < 0 || row >= Math.Max(tensor.Rows, 1)
            || reference.FirstRow < 0 || reference.RowStep < 1 || end > tensor.Columns)
        {
            string rows = reference.Slice is null ? "" : $"{row + 1} or more, ";
            throw new EngineException($"expected the shape [{rows}{end} or more], found {tensor.DescribeShape()}", checkpoint.Path, tensor.Name);
        }
        if (tensor.DType is not (DType.F32 or DType.F16 or DType.BF16))
        {
            throw new EngineException($"expected a bias in F32, F16 or BF16, found {tensor.DType}", checkpoint.Path, tensor.Name);
        }
        var values = new float[length];
        if (length > 0)
        {
            tensor.RequireFinite(row);
            var stored = new float[tensor.Columns];
            tensor.DecodeRow(row, stored);
            for (int i = 0; i < length; i++)
            {
                values[i] = stored[reference.FirstRow + i * reference.RowStep];
            }
        }
        tensor.Evict();
        return values;
    }

    private struct PackRun
    {
        public PackedMatrix Matrix;
        public WeightRows Source;
        public int Next;
        public int End;
    }
}
