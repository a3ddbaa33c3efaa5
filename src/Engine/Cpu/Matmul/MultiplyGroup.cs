using System.Diagnostics.CodeAnalysis;

namespace Engine.Cpu.Matmul;

/// <summary>
/// Multiplications of several maps, each with tokens of its own, that run as one: threads take pieces of the first that has any left, and so on to the last, with
/// no barrier between them; where a map takes two passes, all take them together. Filled anew for every run; nothing is allocated once its buffers have grown.
/// </summary>
[SuppressMessage("Design", "CA1001", Justification = "The buffer has a finalizer, and is replaced as the group grows.")]
internal sealed unsafe class MultiplyGroup(ThreadTeam team) : IDisposable
{
    private MultiplyJob[] jobs = new MultiplyJob[16];
    private NativeBuffer activations = new(0, "activations of experts");
    private int count;
    private bool completes;

    /// <summary>Empties the group.</summary>
    public void Clear()
    {
        count = 0;
        completes = false;
    }

    /// <summary>Adds <c>output = W·input + B·(A·input) + b</c>.</summary>
    /// <param name="linear">The map.</param>
    /// <param name="input">Rows of inputs.</param>
    /// <param name="inputRows">[tokens]: the row of each token; null where they are in order. Stays as it is until the run is over.</param>
    /// <param name="tokens">Tokens, at least 1.</param>
    /// <param name="output">[tokens, outputs].</param>
    public void Add(PackedLinear linear, float* input, int* inputRows, int tokens, float* output)
    {
        if (count == jobs.Length)
        {
            Array.Resize(ref jobs, 2 * count);
        }
        jobs[count++] = new MultiplyJob
        {
            Linear = linear,
            Team = team,
            Input = input,
            InputRows = inputRows,
            Output = output,
            OutputStride = linear.Plan.Outputs,
            Tokens = tokens,
        };
        completes |= linear.HasCompletions;
    }

    /// <summary>Makes room for the activations and intermediate results of all that was added; called before the run.</summary>
    public void Place()
    {
        nuint bytes = 0;
        for (int i = 0; i < count; i++)
        {
            bytes += jobs[i].Linear.ScratchBytes(jobs[i].Tokens);
        }
        if (bytes > (nuint)activations.Bytes)
        {
            activations.Dispose();
            activations = new NativeBuffer(checked((long)bytes), "activations of experts");
        }
        byte* memory = (byte*)activations.Address;
        for (int i = 0; i < count; i++)
        {
            ref MultiplyJob job = ref jobs[i];
            job.Linear.Place(ref job, memory);
            memory += job.Linear.ScratchBytes(job.Tokens);
        }
    }

    /// <summary>Inside a run: brings the inputs into the kernels' layouts and multiplies until nothing is left. A barrier follows.</summary>
    public void Run(int thread, int threads)
    {
        for (int i = 0; i < count; i++)
        {
            jobs[i].Linear.Prepare(jobs[i], thread, threads);
        }
        team.Barrier(thread);
        for (int i = 0; i < count; i++)
        {
            jobs[i].Linear.Multiply(ref jobs[i], thread, threads);
        }
        if (!completes)
        {
            return;
        }
        team.Barrier(thread);
        for (int i = 0; i < count; i++)
        {
            jobs[i].Linear.PrepareCompletions(jobs[i], thread, threads);
        }
        team.Barrier(thread);
        for (int i = 0; i < count; i++)
        {
            jobs[i].Linear.Complete(thread, threads);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => activations.Dispose();
}
