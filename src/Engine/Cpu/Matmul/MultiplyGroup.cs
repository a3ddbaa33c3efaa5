using System.Diagnostics.CodeAnalysis;

namespace Engine.Cpu.Matmul;

/// <summary>
/// Multiplications of several maps, each with tokens of its own, that run as one: threads take pieces of the first that has any left, and so on to the last, with
/// no barrier between them. Filled anew for every run; nothing is allocated once its buffers have grown.
/// </summary>
[SuppressMessage("Design", "CA1001", Justification = "The buffer has a finalizer, and is replaced as the group grows.")]
internal sealed unsafe class MultiplyGroup(ThreadTeam team) : IDisposable
{
    private MultiplyJob[] jobs = new MultiplyJob[16];
    private NativeBuffer activations = new(0, "activations of experts");
    private int count;

    /// <summary>Empties the group.</summary>
    public void Clear() => count = 0;

    /// <summary>Adds <c>output = W·input + b</c>.</summary>
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
        jobs[count++] = new MultiplyJob { Linear = linear, Team = team, Input = input, InputRows = inputRows, Output = output, Tokens = tokens };
    }

    /// <summary>Makes room for the activations of all that was added; called before the run.</summary>
    public void Place()
    {
        nuint bytes = 0;
        for (int i = 0; i < count; i++)
        {
            bytes += jobs[i].Linear.ActivationBytes(jobs[i].Tokens);
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
            job.Linear.PlaceActivations(ref job, memory);
            memory += job.Linear.ActivationBytes(job.Tokens);
        }
    }

    /// <summary>Inside a run: a thread's share of bringing the inputs into the kernels' layouts. A barrier follows.</summary>
    public void Prepare(int thread, int threads)
    {
        for (int i = 0; i < count; i++)
        {
            jobs[i].Linear.Prepare(jobs[i], thread, threads);
        }
    }

    /// <summary>Inside a run: multiplies until nothing is left.</summary>
    public void Multiply(int thread, int threads)
    {
        for (int i = 0; i < count; i++)
        {
            jobs[i].Linear.Multiply(ref jobs[i], thread, threads);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => activations.Dispose();
}
