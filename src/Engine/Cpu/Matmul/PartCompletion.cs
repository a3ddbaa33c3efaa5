using System.Numerics.Tensors;
using Engine.Checkpoints;
using Engine.Cpu.Kernels;
using Engine.Cpu.Matmul.Kernels;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// The second pass over a part of a <see cref="PackedLinear"/> that is not one whole matrix. The first has put A·x, and W·x of the rows of a subset, into
/// <see cref="MultiplyJob.Hidden"/>. Where W has all its rows, the outputs have W·x + b already; else they get b and the rows of the subset here, all others
/// being zero. Then B·(A·x) is added.
/// </summary>
internal sealed unsafe class PartCompletion : IDisposable
{
    private readonly LinearPart part;
    private readonly int firstOutput;
    private readonly long rowsBefore, narrowBefore;
    private readonly int[] rows;
    private readonly float[]? bias;
    private readonly PackedLinear? wide;
    private MultiplyJob job;

    private PartCompletion(LinearPart part, int firstOutput, long rowsBefore, long narrowBefore, float[]? bias, PackedLinear? wide)
    {
        this.part = part;
        this.firstOutput = firstOutput;
        this.rowsBefore = rowsBefore;
        this.narrowBefore = narrowBefore;
        this.bias = bias;
        this.wide = wide;
        rows = part.Weight is null || part.Rows is not { } kept ? [] : [.. kept];
    }

    /// <summary>Bytes held.</summary>
    public long Bytes => (wide?.Bytes ?? 0) + ((bias?.Length ?? 0) + rows.Length) * 4L;

    /// <summary>Multiplications per token.</summary>
    public long Multiplications => wide is null ? part.Outputs : (long)part.Outputs * wide.Plan.Inputs;

    /// <summary>The forms in which the kernels read A·x.</summary>
    public ActivationForms Reads => wide?.Reads ?? ActivationForms.None;

    /// <summary>Kernels to use instead of the processor's best.</summary>
    internal MatmulInstructions Instructions
    {
        set
        {
            if (wide is not null)
            {
                wide.Instructions = value;
            }
        }
    }

    /// <summary>Reads what a part has besides matrices that meet the inputs.</summary>
    /// <param name="part">The part.</param>
    /// <param name="firstOutput">Its first row among the outputs of its map.</param>
    /// <param name="rowsBefore">Where the rows of the subset are in the hidden memory; null where there are none.</param>
    /// <param name="narrowBefore">Where A·x is in it; null where there is none.</param>
    /// <param name="checkpoint">Where the tensors are.</param>
    /// <param name="team">The threads.</param>
    /// <param name="activations">Precision of activations that meet BF16 weights.</param>
    /// <exception cref="EngineException">A tensor is missing or does not fit.</exception>
    public static PartCompletion Load(
        LinearPart part, int firstOutput, long? rowsBefore, long? narrowBefore, Checkpoint checkpoint, ThreadTeam team, ActivationPrecision activations)
    {
        bool hasBias = part.Bias is not null && (part.Weight is null || part.Rows is not null);
        float[]? bias = hasBias ? MatrixLoader.ReadVector(checkpoint, part.Bias!, part.Outputs) : null;
        PackedLinear? wide = part.LowRank is not { } term ? null
            : PackedLinear.Load(new LinearPlan(term.Rank, [new LinearPart(part.Outputs, term.B)]), checkpoint, team, activations);
        return new PartCompletion(part, firstOutput, rowsBefore ?? 0, narrowBefore ?? 0, bias, wide);
    }

    /// <summary>The rank of a term.</summary>
    /// <exception cref="EngineException">It is less than 1.</exception>
    public static int RequireRank(LowRankTerm term) =>
        term.Rank >= 1 ? term.Rank : throw new EngineException($"expected a rank of at least 1, found {term.Rank}", item: term.A.Tensor);

    /// <summary>Bytes that <see cref="Place"/> needs.</summary>
    public nuint ScratchBytes(int tokens) => wide?.ScratchBytes(tokens) ?? 0;

    /// <summary>Notes a job, and says where A·x goes in the forms that the kernels read.</summary>
    public void Place(in MultiplyJob whole, byte* memory)
    {
        if (wide is not null)
        {
            job = new MultiplyJob
            {
                Linear = wide,
                Team = whole.Team,
                Input = whole.Hidden + narrowBefore * whole.Tokens,
                Output = whole.Output + firstOutput,
                OutputStride = whole.OutputStride,
                Tokens = whole.Tokens,
                Accumulate = true,
            };
            wide.Place(ref job, memory);
        }
    }

    /// <summary>Inside a run, once the inputs are multiplied: a thread's share of all but B.</summary>
    public void Prepare(in MultiplyJob whole, int thread, int threads)
    {
        if (part.Weight is null || part.Rows is not null)
        {
            Fill(whole, thread, threads);
        }
        wide?.Prepare(job, thread, threads);
    }

    /// <summary>Inside a run, once all threads have prepared: adds B·(A·x).</summary>
    public void Multiply(int thread, int threads) => wide?.Multiply(ref job, thread, threads);

    /// <inheritdoc/>
    public void Dispose() => wide?.Dispose();

    /// <summary>A thread's share of the outputs, of all tokens: b, and the rows of the subset.</summary>
    private void Fill(in MultiplyJob whole, int thread, int threads)
    {
        (long start, long end) = Share.Of(part.Outputs, thread, threads);
        int first = (int)start, count = (int)(end - start);
        int firstRow = LowerBound(first), endRow = LowerBound(first + count);
        ReadOnlySpan<float> biases = bias is null ? default : bias.AsSpan(first, count);
        for (int token = 0; token < whole.Tokens; token++)
        {
            float* outputs = whole.Output + (long)token * whole.OutputStride + firstOutput;
            var share = new Span<float>(outputs + first, count);
            if (!whole.Accumulate)
            {
                share.Clear();
            }
            if (!biases.IsEmpty)
            {
                TensorPrimitives.Add(share, biases, share);
            }
            float* products = whole.Hidden + rowsBefore * whole.Tokens + (long)token * rows.Length;
            for (int row = firstRow; row < endRow; row++)
            {
                outputs[rows[row]] += products[row];
            }
        }
    }

    /// <summary>How many rows of the subset are before an output.</summary>
    private int LowerBound(int output)
    {
        int found = Array.BinarySearch(rows, output);
        return found < 0 ? ~found : found;
    }
}
