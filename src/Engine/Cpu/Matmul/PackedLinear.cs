using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Kernels;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// A linear map packed for this processor. A token's result has the same bits whatever tokens are beside it, however many threads work, and
/// whichever instruction set they use (but for subnormal numbers under VDPBF16PS): every output sums its products in input order.
/// </summary>
internal sealed unsafe class PackedLinear : DeviceWeights
{
    // Below this many multiplications the work is done before a second thread has woken up to it.
    private const long InlineProducts = 150_000;

    private readonly ImmutableArray<PackedMatrix> matrices;

    private PackedLinear(LinearPlan plan, ImmutableArray<PackedMatrix> matrices)
    {
        Plan = plan;
        this.matrices = matrices;
        Reads = FormsOf(matrices);
    }

    /// <summary>What was packed.</summary>
    public LinearPlan Plan { get; }

    /// <summary>The forms in which the kernels read activations.</summary>
    public ActivationForms Reads { get; private set; }

    /// <inheritdoc/>
    public override long Bytes => matrices.Sum(static matrix => matrix.Bytes);

    /// <summary>Kernels to use instead of the processor's best.</summary>
    internal MatmulInstructions Instructions
    {
        set
        {
            foreach (PackedMatrix matrix in matrices)
            {
                matrix.Instructions = value;
            }
            Reads = FormsOf(matrices);
        }
    }

    /// <summary>Packs the parts of a plan with all threads of a team.</summary>
    /// <param name="plan">What to pack.</param>
    /// <param name="checkpoint">Where the tensors are.</param>
    /// <param name="team">The threads.</param>
    /// <param name="activations">Precision of activations that meet BF16 weights.</param>
    /// <exception cref="EngineException">A tensor is missing, has the wrong shape or a type that cannot be multiplied, or a scale is not finite.</exception>
    public static PackedLinear Load(
        LinearPlan plan, Checkpoint checkpoint, ThreadTeam team, ActivationPrecision activations = ActivationPrecision.Float32)
    {
        var matrices = new List<PackedMatrix>();
        try
        {
            int firstOutput = 0;
            foreach (LinearPart part in plan.Parts)
            {
                matrices.Add(MatrixLoader.Load(part, plan.Inputs, firstOutput, checkpoint, team, activations));
                firstOutput += part.Outputs;
            }
            return new PackedLinear(plan, [.. matrices]);
        }
        catch
        {
            matrices.ForEach(static matrix => matrix.Dispose());
            throw;
        }
    }

    /// <summary>Computes <c>output = W·input + b</c>, or adds it.</summary>
    /// <param name="team">The threads.</param>
    /// <param name="input">[tokens, inputs].</param>
    /// <param name="tokens">Tokens; may be 0.</param>
    /// <param name="output">[tokens, outputs]; must not overlap <paramref name="input"/>.</param>
    /// <param name="accumulate">Add to the output instead of replacing it.</param>
    public void Multiply(ThreadTeam team, float* input, int tokens, float* output, bool accumulate)
    {
        if (tokens == 0 || Plan.Outputs == 0)
        {
            return;
        }
        var job = new MultiplyJob { Linear = this, Team = team, Input = input, Output = output, Tokens = tokens, Accumulate = accumulate };
        PlaceActivations(ref job, team.SharedScratch(ActivationBytes(tokens)));
        bool inline = (long)tokens * Plan.Inputs * Plan.Outputs < InlineProducts;

        // The job lies on this stack frame until the run is over, so its address stays good.
        team.Run(&Run, Unsafe.AsPointer(ref job), inline ? 1 : team.Threads);
    }

    /// <summary>Bytes that <see cref="PlaceActivations"/> needs.</summary>
    public nuint ActivationBytes(int tokens)
    {
        nuint bytes = 0;
        for (ActivationForms form = ActivationForms.Blocks; form <= ActivationForms.Pairs; form = (ActivationForms)((int)form << 1))
        {
            bytes += FormBytes(form, tokens);
        }
        return bytes;
    }

    /// <summary>Says where a job's activations go in the forms that the kernels read.</summary>
    public void PlaceActivations(ref MultiplyJob job, byte* memory)
    {
        job.Blocks = memory;
        job.Floats = (uint*)(memory += FormBytes(ActivationForms.Blocks, job.Tokens));
        job.RoundedFloats = (uint*)(memory += FormBytes(ActivationForms.Floats, job.Tokens));
        job.Pairs = (uint*)(memory + FormBytes(ActivationForms.RoundedFloats, job.Tokens));
    }

    /// <summary>Decodes one row of the weights, as an embedding reads it from a tied head.</summary>
    /// <param name="outputRow">0 … outputs − 1.</param>
    /// <param name="destination">[inputs].</param>
    public void DecodeRow(int outputRow, Span<float> destination)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(outputRow);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(outputRow, Plan.Outputs);
        ArgumentOutOfRangeException.ThrowIfLessThan(destination.Length, Plan.Inputs, nameof(destination));
        foreach (PackedMatrix matrix in matrices)
        {
            if (outputRow < matrix.FirstOutput + matrix.Rows)
            {
                matrix.DecodeRow(outputRow - matrix.FirstOutput, destination);
                return;
            }
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        foreach (PackedMatrix matrix in matrices)
        {
            matrix.Dispose();
        }
    }

    private static ActivationForms FormsOf(ImmutableArray<PackedMatrix> matrices) =>
        matrices.Aggregate(ActivationForms.None, static (forms, matrix) => forms | matrix.Reads);

    private bool ReadsForm(ActivationForms form) => (Reads & form) != 0;

    /// <summary>Bytes of the activations in one form, with room to keep the next aligned.</summary>
    private nuint FormBytes(ActivationForms form, int tokens)
    {
        long token = form == ActivationForms.Blocks
            ? ActivationLayout.TokenBytes(Plan.Inputs)
            : FloatActivations.TokenWords(Plan.Inputs, form) * sizeof(uint);
        return ReadsForm(form) ? ((nuint)tokens * (nuint)token + 127) & ~(nuint)63 : 0;
    }

    private static void Run(void* state, int thread, int threads)
    {
        ref MultiplyJob job = ref Unsafe.AsRef<MultiplyJob>(state);
        PackedLinear linear = job.Linear;
        linear.Prepare(job, thread, threads);
        if (threads > 1)
        {
            job.Team.Barrier(thread);
        }
        linear.Multiply(ref job, thread, threads);
    }

    /// <summary>Inside a run: a thread's share of bringing the activations into the kernels' layouts.</summary>
    public void Prepare(in MultiplyJob job, int thread, int threads)
    {
        if (ReadsForm(ActivationForms.Blocks))
        {
            int blocks = ActivationLayout.Blocks(Plan.Inputs), whole = Plan.Inputs / ActivationLayout.BlockInputs;
            float* rest = stackalloc float[ActivationLayout.BlockInputs];
            new Span<float>(rest, ActivationLayout.BlockInputs).Clear();
            TokenTiles tiles = BlockKernel.Tiles(job.Tokens);
            long all = (long)job.Tokens * blocks, end = all * (thread + 1) / threads;
            for (long i = all * thread / threads; i < end;)
            {
                int token = (int)(i / blocks), block = (int)(i % blocks), last = (int)Math.Min(blocks, block + end - i);
                int tile = tiles.Of(token), size = tiles.Size(tile), first = tiles.First(tile);
                byte* records = job.Blocks + first * ActivationLayout.TokenBytes(Plan.Inputs);
                float* row = job.Row(token, Plan.Inputs);
                i += last - block;
                for (; block < last; block++)
                {
                    byte* record = records + block * (long)(ActivationLayout.BytesPerToken * size);
                    float* inputs = row + block * ActivationLayout.BlockInputs;
                    if (block == whole)
                    {
                        int left = (Plan.Inputs - whole * ActivationLayout.BlockInputs) * sizeof(float);
                        Buffer.MemoryCopy(inputs, rest, left, left);
                        inputs = rest;
                    }
                    ActivationQuantizer.Quantize(inputs, record, size, token - first);
                }
            }
        }
        for (ActivationForms form = ActivationForms.Floats; form <= ActivationForms.Pairs; form = (ActivationForms)((int)form << 1))
        {
            if (ReadsForm(form))
            {
                FloatActivations.Interleave(job, Plan.Inputs, form, job.Words(form), thread, threads);
            }
        }
    }

    /// <summary>Inside a run, once all threads have prepared: multiplies until nothing of the job is left.</summary>
    public void Multiply(ref MultiplyJob job, int thread, int threads)
    {
        if (threads == 1)
        {
            foreach (PackedMatrix matrix in matrices)
            {
                matrix.Multiply(job, thread, 0, matrix.Panels);
            }
            return;
        }
        int firstItem = 0, item = Interlocked.Increment(ref job.NextItem) - 1;
        foreach (PackedMatrix matrix in matrices)
        {
            int panels = matrix.ItemPanels(job.Tokens, threads), items = (matrix.Panels + panels - 1) / panels;
            while (item - firstItem < items)
            {
                int panel = (item - firstItem) * panels;
                matrix.Multiply(job, thread, panel, Math.Min(panel + panels, matrix.Panels));
                item = Interlocked.Increment(ref job.NextItem) - 1;
            }
            firstItem += items;
        }
    }
}
