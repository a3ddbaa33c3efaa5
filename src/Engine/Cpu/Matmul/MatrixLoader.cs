using System.Runtime.CompilerServices;
using Engine.Checkpoints;
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
            (DType.Q8_0, false) when SparseBlocks.Conform<Q8_0>(source, rows) =>
                new FileBlockMatrix<Q8_0, SparseCodes8, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q4_0, false) when SparseBlocks.Conform<Q4_0>(source, rows) =>
                new FileBlockMatrix<Q4_0, SparseCodes4, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q8_0, false) => new FileBlockMatrix<Q8_0, Codes8, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q4_0, false) => new FileBlockMatrix<Q4_0, Codes4, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q4_1, false) => new FileBlockMatrix<Q4_1, Codes4, BlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q5_0, false) => new FileBlockMatrix<Q5_0, Codes5, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q5_1, false) => new FileBlockMatrix<Q5_1, Codes5, BlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q4_K, false) => new FileBlockMatrix<Q4_K, Codes4, SuperBlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q5_K, false) => new FileBlockMatrix<Q5_K, Codes5, SuperBlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q6_K, false) => new FileBlockMatrix<Q6_K, Codes6, SuperBlockHalfScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.MXFP4, false) => new FileBlockMatrix<MXFP4, CodesE2M1, BlockPowers>(rows, inputs) { FirstOutput = firstOutput },
            (DType.F16, false) when SparseFloatMatrix<Float16>.Conforms(source, rows, inputs) =>
                new SparseFloatMatrix<Float16>(rows, inputs, false) { FirstOutput = firstOutput },
            (DType.BF16, false) when SparseFloatMatrix<BFloat16>.Conforms(source, rows, inputs) =>
                new SparseFloatMatrix<BFloat16>(rows, inputs, activations == ActivationPrecision.BFloat16) { FirstOutput = firstOutput },
            (DType.F32, _) => new FloatMatrix<Float32>(rows, inputs) { FirstOutput = firstOutput },
            (DType.F16, _) => new FloatMatrix<Float16>(rows, inputs) { FirstOutput = firstOutput },
            (DType.BF16, _) => new FloatMatrix<BFloat16>(rows, inputs, activations == ActivationPrecision.BFloat16) { FirstOutput = firstOutput },
            _ => throw new EngineException(
                $"{tensor.DType}{(transposed ? " stored as [inputs, outputs]" : "")} cannot be multiplied on the CPU", checkpoint.Path, tensor.Name),
        };
    }

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
            if (!source.Transposed && tensor.Owner is MappedFile file)
            {
                int rows = (int)Math.Min((long)step * Panel.Rows, matrix.Rows - (long)panel * Panel.Rows);
                file.Evict((nint)(tensor.Address + source.Row(panel * Panel.Rows) * rowBytes), source.Extent(rows) * rowBytes);
            }
        }
        if (matrix.Rows == tensor.Rows || source.Transposed)
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
