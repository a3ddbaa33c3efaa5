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
/// <para>
/// All matrices that meet the inputs are multiplied in one pass: whole ones give outputs, A's and subsets of rows what <see cref="PartCompletion"/> makes
/// outputs of in a second pass.
/// </para>
/// </summary>
internal sealed unsafe class PackedLinear : DeviceWeights
{
    // Below this many multiplications the work is done before a second thread has woken up to it.
    private const long InlineProducts = 150_000;

    private readonly ImmutableArray<InputProduct> products;
    private readonly ImmutableArray<PartCompletion> completions;
    private readonly long hiddenRows;
    private readonly long multiplications;
    private readonly BlockActivations blocks;

    private PackedLinear(LinearPlan plan, ImmutableArray<InputProduct> products, ImmutableArray<PartCompletion> completions)
    {
        Plan = plan;
        this.products = products;
        this.completions = completions;
        hiddenRows = products.Where(static product => product.Hidden is not null).Sum(static product => (long)product.Matrix.Rows);
        multiplications = products.Sum(product => (long)product.Matrix.Rows * plan.Inputs) + completions.Sum(static part => part.Multiplications);
        blocks = BlockActivations.Of(products.Select(static product => product.Matrix));
        Reads = InputForms();
    }

    /// <summary>What was packed.</summary>
    public LinearPlan Plan { get; }

    /// <summary>The forms in which the kernels read the inputs.</summary>
    public ActivationForms Reads { get; private set; }

    /// <summary>The forms in which the kernels read anything.</summary>
    public ActivationForms AllReads => completions.Aggregate(Reads, static (forms, part) => forms | part.Reads);

    /// <summary>There is a second pass, for which <see cref="PrepareCompletions"/> and <see cref="Complete"/> are to be called.</summary>
    public bool HasCompletions => completions.Length > 0;

    /// <inheritdoc/>
    public override long Bytes => products.Sum(static product => product.Matrix.Bytes) + completions.Sum(static part => part.Bytes);

    /// <summary>Kernels to use instead of the processor's best.</summary>
    internal MatmulInstructions Instructions
    {
        set
        {
            foreach (InputProduct product in products)
            {
                product.Matrix.Instructions = value;
            }
            foreach (PartCompletion part in completions)
            {
                part.Instructions = value;
            }
            Reads = InputForms();
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
        var products = new List<InputProduct>();
        var completions = new List<PartCompletion>();
        long hidden = 0;
        int firstOutput = 0;
        try
        {
            foreach (LinearPart part in plan.Parts)
            {
                // Rows of a subset, and those of A, are no outputs: what is in order for them is the hidden memory.
                bool whole = part is { Weight: not null, Rows: null };
                long? rows = whole || part.KeptRows == 0 ? null : Add(new LinearPart(part.Outputs, part.Weight) { Rows = part.Rows }, part.KeptRows);
                if (whole)
                {
                    products.Add(new InputProduct(Pack(part, firstOutput), null));
                }
                long? narrow = part.LowRank is { } term ? Add(new LinearPart(PartCompletion.RequireRank(term), term.A), term.Rank) : null;
                if (!part.IsPlain)
                {
                    completions.Add(PartCompletion.Load(part, firstOutput, rows, narrow, checkpoint, team, activations));
                }
                firstOutput += part.Outputs;
            }
            return new PackedLinear(plan, [.. products], [.. completions]);
        }
        catch
        {
            products.ForEach(static product => product.Matrix.Dispose());
            completions.ForEach(static part => part.Dispose());
            throw;
        }

        PackedMatrix Pack(LinearPart part, int firstOutput) => MatrixLoader.Load(part, plan.Inputs, firstOutput, checkpoint, team, activations);

        long Add(LinearPart part, int rows)
        {
            long before = hidden;
            products.Add(new InputProduct(Pack(part, 0), before));
            hidden += rows;
            return before;
        }
    }

    /// <summary>Computes <c>output = W·input + B·(A·input) + b</c>, or adds it.</summary>
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
        var job = new MultiplyJob
        {
            Linear = this,
            Team = team,
            Input = input,
            Output = output,
            OutputStride = Plan.Outputs,
            Tokens = tokens,
            Accumulate = accumulate,
        };
        Place(ref job, team.SharedScratch(ScratchBytes(tokens)));
        bool inline = tokens * multiplications < InlineProducts;

        // The job lies on this stack frame until the run is over, so its address stays good.
        team.Run(&Run, Unsafe.AsPointer(ref job), inline ? 1 : team.Threads);
    }

    /// <summary>Bytes that <see cref="Place"/> needs.</summary>
    public nuint ScratchBytes(int tokens)
    {
        nuint bytes = HiddenBytes(tokens);
        for (ActivationForms form = ActivationForms.Blocks; form <= ActivationForms.Pairs; form = (ActivationForms)((int)form << 1))
        {
            bytes += FormBytes(form, tokens);
        }
        foreach (PartCompletion part in completions)
        {
            bytes += part.ScratchBytes(tokens);
        }
        return bytes;
    }

    /// <summary>Says where a job's activations go in the forms that the kernels read, and products that are no outputs. A map is in one job at a time.</summary>
    public void Place(ref MultiplyJob job, byte* memory)
    {
        job.Blocks = memory;
        job.OrderBytes = BlockActivations.OrderBytes(Plan.Inputs, job.Tokens);
        job.Floats = (uint*)(memory += FormBytes(ActivationForms.Blocks, job.Tokens));
        job.RoundedFloats = (uint*)(memory += FormBytes(ActivationForms.Floats, job.Tokens));
        job.Pairs = (uint*)(memory += FormBytes(ActivationForms.RoundedFloats, job.Tokens));
        job.Hidden = (float*)(memory += FormBytes(ActivationForms.Pairs, job.Tokens));
        memory += HiddenBytes(job.Tokens);
        foreach (PartCompletion part in completions)
        {
            part.Place(job, memory);
            memory += part.ScratchBytes(job.Tokens);
        }
    }

    /// <summary>Decodes one row of the weights, as an embedding reads it from a tied head; only of maps whose parts are plain.</summary>
    /// <param name="outputRow">0 … outputs − 1.</param>
    /// <param name="destination">[inputs].</param>
    public void DecodeRow(int outputRow, Span<float> destination)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(outputRow);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(outputRow, Plan.Outputs);
        ArgumentOutOfRangeException.ThrowIfLessThan(destination.Length, Plan.Inputs, nameof(destination));
        if (HasCompletions)
        {
            throw new InvalidOperationException("The rows of this map are no rows of a matrix.");
        }
        foreach ((PackedMatrix matrix, _) in products)
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
        foreach (InputProduct product in products)
        {
            product.Matrix.Dispose();
        }
        foreach (PartCompletion part in completions)
        {
            part.Dispose();
        }
    }

    private ActivationForms InputForms() => products.Aggregate(ActivationForms.None, static (forms, product) => forms | product.Matrix.Reads);

    private bool ReadsForm(ActivationForms form) => (Reads & form) != 0;

    /// <summary>Bytes of the activations in one form, with room to keep the next aligned.</summary>
    private nuint FormBytes(ActivationForms form, int tokens)
    {
        if (form == ActivationForms.Blocks)
        {
            return blocks.Bytes(Plan.Inputs, tokens);
        }
        long token = FloatActivations.TokenWords(Plan.Inputs, form) * sizeof(uint);
        return ReadsForm(form) ? ((nuint)tokens * (nuint)token + 127) & ~(nuint)63 : 0;
    }

    private nuint HiddenBytes(int tokens) => hiddenRows == 0 ? 0 : ((nuint)tokens * (nuint)hiddenRows * sizeof(float) + 127) & ~(nuint)63;

    private static void Run(void* state, int thread, int threads)
    {
        ref MultiplyJob job = ref Unsafe.AsRef<MultiplyJob>(state);
        PackedLinear linear = job.Linear;
        linear.Prepare(job, thread, threads);
        job.Team.Barrier(thread);
        linear.Multiply(ref job, thread, threads);
        if (linear.HasCompletions)
        {
            job.Team.Barrier(thread);
            linear.PrepareCompletions(job, thread, threads);
            job.Team.Barrier(thread);
            linear.Complete(thread, threads);
        }
    }

    /// <summary>Inside a run: a thread's share of bringing the activations into the kernels' layouts.</summary>
    public void Prepare(in MultiplyJob job, int thread, int threads)
    {
        blocks.Prepare(job, Plan.Inputs, thread, threads);
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
            foreach (InputProduct product in products)
            {
                product.Multiply(job, thread, 0, product.Matrix.Panels);
            }
            return;
        }
        int firstItem = 0, item = Interlocked.Increment(ref job.NextItem) - 1;
        foreach (InputProduct product in products)
        {
            PackedMatrix matrix = product.Matrix;
            int panels = matrix.ItemPanels(job.Tokens, threads), items = (matrix.Panels + panels - 1) / panels;
            while (item - firstItem < items)
            {
                int panel = (item - firstItem) * panels;
                product.Multiply(job, thread, panel, Math.Min(panel + panels, matrix.Panels));
                item = Interlocked.Increment(ref job.NextItem) - 1;
            }
            firstItem += items;
        }
    }

    /// <summary>Inside a run, once all threads have multiplied: a thread's share of what the second pass reads.</summary>
    public void PrepareCompletions(in MultiplyJob job, int thread, int threads)
    {
        foreach (PartCompletion part in completions)
        {
            part.Prepare(job, thread, threads);
        }
    }

    /// <summary>Inside a run, once all threads have prepared the second pass: multiplies until nothing of it is left.</summary>
    public void Complete(int thread, int threads)
    {
        foreach (PartCompletion part in completions)
        {
            part.Multiply(thread, threads);
        }
    }

    /// <summary>A matrix that is multiplied with the inputs.</summary>
    /// <param name="Matrix">The matrix.</param>
    /// <param name="Hidden">Rows before its own in <see cref="MultiplyJob.Hidden"/>; null where its rows are outputs.</param>
    private readonly record struct InputProduct(PackedMatrix Matrix, long? Hidden)
    {
        public void Multiply(in MultiplyJob job, int thread, int firstPanel, int endPanel)
        {
            if (Hidden is not { } before)
            {
                Matrix.Multiply(job, thread, firstPanel, endPanel);
                return;
            }
            MultiplyJob aside = job with { Output = job.Hidden + before * job.Tokens, OutputStride = Matrix.Rows, Accumulate = false };
            Matrix.Multiply(aside, thread, firstPanel, endPanel);
        }
    }
}
