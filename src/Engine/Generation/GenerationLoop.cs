using Engine.Execution;
using Engine.Text;

namespace Engine.Generation;

/// <summary>
/// One thread that runs a model for all its users: admits requests while pages last, plans a step over all running sequences, runs it, samples.
/// A request is admitted only with pages for its whole length reserved, so a running sequence never waits for another's memory.
/// </summary>
internal sealed class GenerationLoop : IDisposable
{
    private readonly Executor executor;
    private readonly KvCache cache;
    private readonly PrefixCache prefixes;
    private readonly Tokenizer? tokenizer;
    private readonly StepPlan plan;
    private readonly LogitsConsumer accept;
    private readonly List<ActiveGeneration> running = [];
    private readonly List<Sequence> sequences = [];
    private readonly List<Sequence> planned = [];
    private readonly Queue<ActiveGeneration> arrivals = new();
    private readonly Queue<ActiveGeneration> waiting = new();
    private readonly Lock arrivalsGate = new();
    private readonly SemaphoreSlim wake = new(0);
    private readonly Thread thread;
    private int nextSequence;
    private volatile bool stopping;

    public GenerationLoop(Executor executor, KvCache cache, Tokenizer? tokenizer)
    {
        this.executor = executor;
        this.cache = cache;
        this.tokenizer = tokenizer;
        prefixes = new PrefixCache(cache);
        plan = new StepPlan(cache.SlotCount);
        accept = Accept;
        thread = new Thread(Run) { IsBackground = true, Name = "generation" };
        thread.Start();
    }

    /// <summary>Held while a step runs; whoever else uses the executor takes it.</summary>
    public Lock ExecutorGate { get; } = new();

    /// <summary>Queues a request.</summary>
    /// <exception cref="EngineException">It needs more pages than the cache has.</exception>
    public ActiveGeneration Submit(ReadOnlySpan<int> prompt, int maxTokens, GenerationRequest request)
    {
        long pages = cache.PagesFor(prompt.Length + maxTokens);
        if (pages > cache.PageCount)
        {
            throw new EngineException(
                $"the KV cache holds {(long)cache.PageCount / cache.SlotCount * cache.PageTokens} tokens, and the request needs " +
                $"{prompt.Length} for the prompt and {maxTokens} to generate");
        }
        ActiveGeneration generation = new(prompt, maxTokens, request, tokenizer);
        lock (arrivalsGate)
        {
            ThrowIfStopping();
            arrivals.Enqueue(generation);
        }
        wake.Release();
        return generation;
    }

    /// <summary>Reserves pages for a track outside the loop (see <see cref="LogitsSession"/>); call with <see cref="ExecutorGate"/> held.</summary>
    public bool TryReserve(KvTrack track, int tokens)
    {
        while (!cache.TryReserve(track, tokens))
        {
            if (!prefixes.EvictOldest())
            {
                return false;
            }
        }
        return true;
    }

    /// <summary>Refuses to go on once the model is being disposed; call with <see cref="ExecutorGate"/> held, before using the executor.</summary>
    public void ThrowIfStopping()
    {
        if (stopping)
        {
            throw Disposed();
        }
    }

    /// <summary>Gives back a track reserved with <see cref="TryReserve"/>; call with <see cref="ExecutorGate"/> held.</summary>
    public void Release(KvTrack track)
    {
        cache.Release(track);
        if (!stopping)
        {
            wake.Release();
        }
    }

    /// <summary>Lets the reader's side go: the loop frees the sequence before its next step.</summary>
    public void Cancel(ActiveGeneration generation)
    {
        generation.Cancelled = true;
        wake.Release();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (arrivalsGate)
        {
            stopping = true;
        }
        wake.Release();
        thread.Join();
    }

    private void Run()
    {
        try
        {
            while (!stopping)
            {
                lock (ExecutorGate)
                {
                    Admit();
                    RunStep();
                }
                if (sequences.Count == 0)
                {
                    wake.Wait();
                }
            }
        }
        finally
        {
            Fail(Disposed());
        }
    }

    private void RunStep()
    {
        DropCancelled();
        Scheduler.Fill(plan, cache, sequences, executor.MaxRows, planned);
        if (planned.Count == 0)
        {
            return;
        }
        try
        {
            executor.Step(plan, cache.Storage, accept);
            foreach (Sequence sequence in planned)
            {
                sequence.CompleteStep();
            }
        }
#pragma warning disable CA1031 // Whatever a step or a sampler throws ends the generations it served, not the process.
        catch (Exception error)
#pragma warning restore CA1031
        {
            Fail(error);
        }
        for (int i = running.Count - 1; i >= 0; i--)
        {
            if (running[i].Finished)
            {
                prefixes.Keep(sequences[i]);
                Remove(i);
            }
        }
    }

    private void Accept(int index, Span<float> logits)
    {
        Sequence sequence = planned[plan.Rows[plan.LogitRows[index]].Track];
        ActiveGeneration generation = running[sequences.IndexOf(sequence)];
        try
        {
            generation.Accept(logits);
        }
#pragma warning disable CA1031 // What one request's sampling throws ends that request, not its neighbours.
        catch (Exception error)
#pragma warning restore CA1031
        {
            generation.Abort(error);
        }
    }

    private void Admit()
    {
        lock (arrivalsGate)
        {
            while (arrivals.TryDequeue(out ActiveGeneration? arrival))
            {
                waiting.Enqueue(arrival);
            }
        }
        // No more sequences than rows, so that every one of them gets a row in every step.
        while (running.Count < executor.MaxRows && waiting.TryPeek(out ActiveGeneration? next))
        {
            if (!next.Cancelled && !TryStart(next))
            {
                return;
            }
            waiting.Dequeue();
        }
    }

    private bool TryStart(ActiveGeneration generation)
    {
        KvTrack track = new(cache.SlotCount);
        int shared = prefixes.TryShare(generation.Prompt, track);
        if (!TryReserve(track, generation.Prompt.Length + generation.MaxTokens - shared))
        {
            cache.Release(track);
            return false;
        }
        Sequence sequence = new(nextSequence++, generation.Prompt, track);
        sequence.SkipPrefix(shared);
        generation.Start(sequence, shared);
        running.Add(generation);
        sequences.Add(sequence);
        return true;
    }

    private void DropCancelled()
    {
        for (int i = running.Count - 1; i >= 0; i--)
        {
            if (running[i].Cancelled)
            {
                running[i].Stream.Complete();
                prefixes.Keep(sequences[i]);
                Remove(i);
            }
        }
    }

    private void Remove(int index)
    {
        cache.Release(sequences[index].Track);
        running.RemoveAt(index);
        sequences.RemoveAt(index);
    }

    /// <summary>Ends everything that is running or waiting with an error.</summary>
    private void Fail(Exception error)
    {
        for (int i = running.Count - 1; i >= 0; i--)
        {
            running[i].Stream.Complete(error);
            Remove(i);
        }
        lock (arrivalsGate)
        {
            while (stopping && arrivals.TryDequeue(out ActiveGeneration? arrival))
            {
                waiting.Enqueue(arrival);
            }
        }
        while (stopping && waiting.TryDequeue(out ActiveGeneration? never))
        {
            never.Stream.Complete(error);
        }
    }

    /// <summary>What users hold is the model, and not this loop.</summary>
    private static ObjectDisposedException Disposed() => new("LanguageModel");
}
