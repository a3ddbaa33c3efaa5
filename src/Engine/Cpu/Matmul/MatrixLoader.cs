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

    /// <summary>Packs one part.</summary>
    /// <exception cref="EngineException">The tensor is missing or does not fit.</exception>
    public static PackedMatrix Load(
        LinearPart part, int inputs, int firstOutput, Checkpoint checkpoint, ThreadTeam team, ActivationPrecision activations)
    {
        WeightRef weight = part.Weight;
        TensorView tensor = checkpoint[weight.Tensor];
        RequireShape(tensor, weight, part.Outputs, inputs, checkpoint);
        PackedMatrix matrix = Create(tensor, part.Outputs, inputs, firstOutput, weight.Transposed, checkpoint, activations);
        try
        {
            matrix.Bias = part.Bias is null ? null : ReadVector(checkpoint, part.Bias, part.Outputs);
            Pack(matrix, tensor, weight, team);
            return matrix;
        }
        catch
        {
            matrix.Dispose();
            throw;
        }
    }

    private static void RequireShape(TensorView tensor, WeightRef weight, int outputs, int inputs, Checkpoint checkpoint)
    {
        long rows = weight.Transposed ? tensor.Columns : tensor.Rows, columns = weight.Transposed ? tensor.Rows : tensor.Columns;
        if (tensor.Shape.Length < 2 || columns != inputs || weight.FirstRow < 0 || weight.FirstRow > rows - outputs)
        {
            string expected = weight.Transposed
                ? $"[{inputs}, {(long)weight.FirstRow + outputs} or more]"
                : $"[{(long)weight.FirstRow + outputs} or more, {inputs}]";
            throw new EngineException($"expected the shape {expected}, found {tensor.DescribeShape()}", checkpoint.Path, tensor.Name);
        }
        int block = tensor.DType.Info().BlockElements;
        if (inputs % block != 0)
        {
            throw new EngineException($"rows of {inputs} elements are not whole blocks of {block} ({tensor.DType})", checkpoint.Path, tensor.Name);
        }
    }

    private static PackedMatrix Create(
        TensorView tensor, int rows, int inputs, int firstOutput, bool transposed, Checkpoint checkpoint, ActivationPrecision activations) =>
        (tensor.DType, transposed) switch
        {
            (DType.Q8_0, false) => new BlockMatrix<Q8_0, Codes8, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q4_0, false) => new BlockMatrix<Q4_0, Codes4, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q4_1, false) => new BlockMatrix<Q4_1, Codes4, BlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q5_0, false) => new BlockMatrix<Q5_0, Codes5, BlockScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q5_1, false) => new BlockMatrix<Q5_1, Codes5, BlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q4_K, false) => new BlockMatrix<Q4_K, Codes4, SuperBlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q5_K, false) => new BlockMatrix<Q5_K, Codes5, SuperBlockScalesAndMinima>(rows, inputs) { FirstOutput = firstOutput },
            (DType.Q6_K, false) => new BlockMatrix<Q6_K, Codes6, SuperBlockHalfScales>(rows, inputs) { FirstOutput = firstOutput },
            (DType.F32, _) => new FloatMatrix<Float32>(rows, inputs) { FirstOutput = firstOutput },
            (DType.F16, _) => new FloatMatrix<Float16>(rows, inputs) { FirstOutput = firstOutput },
            (DType.BF16, _) => new FloatMatrix<BFloat16>(rows, inputs, activations == ActivationPrecision.BFloat16) { FirstOutput = firstOutput },
            _ => throw new EngineException(
                $"{tensor.DType}{(transposed ? " stored as [inputs, outputs]" : "")} cannot be multiplied on the CPU", checkpoint.Path, tensor.Name),
        };

    private static void Pack(PackedMatrix matrix, TensorView tensor, WeightRef weight, ThreadTeam team)
    {
        if (weight.Transposed)
        {
            tensor.RequireFinite(); // Panels are columns of the tensor then, and check nothing themselves.
        }
        long rowBytes = weight.Transposed ? tensor.ByteLength / tensor.Columns : tensor.RowBytes;
        int step = (int)Math.Clamp(RunBytes / Math.Max(1, rowBytes * Panel.Rows), 1, Math.Max(1, matrix.Panels));
        for (int panel = 0; panel < matrix.Panels; panel += step)
        {
            var run = new PackRun
            {
                Matrix = matrix,
                Tensor = tensor,
                Weight = weight,
                Next = panel,
                End = Math.Min(panel + step, matrix.Panels),
            };
            team.Run(&PackPanels, Unsafe.AsPointer(ref run));
            if (!weight.Transposed && tensor.Owner is MappedFile file)
            {
                long first = (weight.FirstRow + (long)panel * Panel.Rows) * rowBytes;
                long length = Math.Min((long)step * Panel.Rows, matrix.Rows - (long)panel * Panel.Rows) * rowBytes;
                file.Evict((nint)(tensor.Address + first), length);
            }
        }
        tensor.Evict();
    }

    private static void PackPanels(void* state, int thread, int threads)
    {
        ref PackRun run = ref Unsafe.AsRef<PackRun>(state);
        for (int panel; (panel = Interlocked.Increment(ref run.Next) - 1) < run.End;)
        {
            run.Matrix.Pack(run.Tensor, run.Weight.FirstRow, run.Weight.Transposed, panel);
        }
    }

    private static float[] ReadVector(Checkpoint checkpoint, WeightRef reference, int length)
    {
        TensorView tensor = checkpoint[reference.Tensor];
        if (tensor.Shape.Length != 1 || reference.FirstRow < 0 || reference.FirstRow > tensor.ElementCount - length)
        {
            throw new EngineException(
                $"expected the shape [{(long)reference.FirstRow + length} or more], found {tensor.DescribeShape()}", checkpoint.Path, tensor.Name);
        }
        if (tensor.DType is not (DType.F32 or DType.F16 or DType.BF16))
        {
            throw new EngineException($"expected a bias in F32, F16 or BF16, found {tensor.DType}", checkpoint.Path, tensor.Name);
        }
        tensor.RequireFinite();
        float[] values = tensor.ToFloats().AsSpan(reference.FirstRow, length).ToArray();
        tensor.Evict();
        return values;
    }

    private struct PackRun
    {
        public PackedMatrix Matrix;
        public TensorView Tensor;
        public WeightRef Weight;
        public int Next;
        public int End;
    }
}
