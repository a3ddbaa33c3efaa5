using Engine.Execution;
using Engine.Text;

namespace Engine.Generation;

/// <summary>
/// One thread that runs a model for all its users: admits requests while pages last, plans a step over all running sequences, runs it, samples.
/// <para>Where every token reaches every slot, a request is admitted only with pages for its whole length reserved, so a running sequence never waits for
/// another's memory. Where tokens leave early, that would reserve what is never used: requests are admitted by what they are expected to need, pages are taken as
/// they fill, and if they run out all the same, the youngest sequence gives its own back and starts again later with the tokens it has.</para>
/// </summary>
internal sealed class GenerationLoop : IDisposable
{
    private readonly Executor executor;
    private readonly KvCache cache;
    private readonly PrefixCache prefixes;
    private readonly Tokenizer? tokenizer;
    private readonly StepPlan plan;
    private readonly FinishedRowConsumer accept;
    private readonly double pagesPerToken;
    private readonly bool reservesWhole;
    private readonly bool sharesPrefixes;
    private readonly List<ActiveGeneration> running = [];
    private readonly List<Sequence> sequences = [];
    private readonly List<Sequence> planned = [];
    private readonly Queue<ActiveGeneration> arrivals = new();
    private readonly Queue<ActiveGeneration> waiting = new();
    private readonly Stack<ActiveGeneration> preempted = new();
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
        bool official = executor.Selection == DepthSelection.Official;
        reservesWhole = !executor.KeepsRows || official;
        sharesPrefixes = !executor.KeepsRows;
        pagesPerToken = executor.Plan.Layers.SlotsPerToken / cache.PageTokens;
        thread = new Thread(Run) { IsBackground = true, Name = "generation" };
        thread.Start();
    }

    /// <summary>Held while a step runs; whoever else uses the executor takes it.</summary>
    public Lock ExecutorGate { get; } = new();

    /// <summary>How often a sequence had to give its pages back.</summary>
    public int Preemptions { get; private set; }

    /// <summary>Queues a request.</summary>
    /// <exception cref="EngineException">It needs more pages than the cache has.</exception>
    public ActiveGeneration Submit(ReadOnlySpan<int> prompt, int maxTokens, GenerationRequest request, int streamSet = 0)
    {
        int streams = StreamsOf(streamSet);
        if (cache.PagesFor(prompt.Length + maxTokens, streams) > cache.PageCount)
        {
            throw new EngineException(
                $"the KV cache holds {cache.PageCount / cache.PagesFor(1, streams) * cache.PageTokens} tokens, and the request needs " +
                $"{prompt.Length} for the prompt and {maxTokens} to generate");
        }
        ActiveGeneration generation = new(prompt, maxTokens, request, tokenizer, streamSet);
        lock (arrivalsGate)
        {
            ThrowIfStopping();
            arrivals.Enqueue(generation);
        }
        wake.Release();
        return generation;
    }

    /// <summary>Reserves pages for tracks outside the loop too (see <see cref="LogitsSession"/>); call with <see cref="ExecutorGate"/> held.</summary>
    public bool TryReserve(ReadOnlySpan<KvTrack> tracks, int tokens)
    {
        while (!cache.TryReserve(tracks, tokens))
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
                if (planned.Count == 0)
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
        Scheduler.Assign(sequences, executor.MaxRows, wholePrompts: executor.Selection == DepthSelection.Official);
        if (!reservesWhole)
        {
            ReserveStep();
        }
        Scheduler.Fill(plan, cache, sequences, planned);
        if (planned.Count == 0)
        {
            return;
        }
        try
        {
            executor.Step(plan, cache.Storage, accept);
            Scheduler.Complete(plan, cache, planned);
            for (int i = 0; !reservesWhole && i < planned.Count; i++)
            {
                foreach (KvTrack track in planned[i].Tracks)
                {
                    cache.Trim(track);
                }
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
                Keep(i);
            }
        }
    }

    /// <summary>Takes pages for what this step may append, the oldest sequences first.</summary>
    private void ReserveStep()
    {
        for (int i = 0; i < sequences.Count; i++)
        {
            Sequence sequence = sequences[i];
            while (!TryReserve(sequence.Tracks, sequence.Planned + sequence.InFlight))
            {
                if (i == sequences.Count - 1 && sequence.Planned > 0 && sequence.InFlight > 0)
                {
                    sequence.Planned = 0;
                    continue;
                }
                // A request is only accepted if it fits alone, so this ends with the oldest sequence at the latest.
                Preempt(sequences.Count - 1);
                if (i == sequences.Count)
                {
                    break;
                }
            }
        }
    }

    /// <summary>Takes a sequence's pages; it goes on later from its tokens, which are the same whoever ran beside it.</summary>
    private void Preempt(int index)
    {
        Preemptions++;
        executor.Drop(sequences[index].Id);
        sequences[index].Restart(cache);
        preempted.Push(running[index]);
        running.RemoveAt(index);
        sequences.RemoveAt(index);
    }

    /// <summary>Takes a token; those of different sequences come at the same time, so nothing is touched here but the token's own sequence.</summary>
    private void Accept(in FinishedRow row, Span<float> logits)
    {
        int index = 0;
        while (sequences[index].Id != row.Sequence)
        {
            index++;
        }
        ActiveGeneration generation = running[index];
        sequences[index].Finish();
        if (executor.KeepsRows)
        {
            generation.NoteDepth(row.Position, row.Depth);
        }
        if (logits.IsEmpty)
        {
            return;
        }
        try
        {
            generation.Accept(row, logits);
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
        while (preempted.TryPeek(out ActiveGeneration? stopped))
        {
            if (!stopped.Cancelled && !MayStart(stopped))
            {
                return;
            }
            preempted.Pop();
            running.Add(stopped);
            sequences.Add(stopped.Sequence!);
        }
        while (waiting.TryPeek(out ActiveGeneration? next))
        {
            if (!next.Cancelled && !(MayStart(next) && TryStart(next)))
            {
                return;
            }
            waiting.Dequeue();
        }
    }

    /// <summary>No more streams than rows, so that every sequence gets its rows in every step; and no more pages expected than there are.</summary>
    private bool MayStart(ActiveGeneration generation)
    {
        int rows = StreamsOf(generation.StreamSet);
        double pages = ExpectedPages(generation);
        foreach (ActiveGeneration other in running)
        {
            rows += StreamsOf(other.StreamSet);
            pages += ExpectedPages(other);
        }
        return rows <= executor.MaxRows && (reservesWhole || running.Count == 0 || pages <= cache.PageCount);
    }

    private bool TryStart(ActiveGeneration generation)
    {
        KvTrack[] tracks = cache.NewTracks(StreamsOf(generation.StreamSet));
        int shared = sharesPrefixes ? prefixes.TryShare(generation.Prompt, generation.StreamSet, tracks) : 0;
        if (reservesWhole && !TryReserve(tracks, generation.Prompt.Length + generation.MaxTokens - shared))
        {
            foreach (KvTrack track in tracks)
            {
                cache.Release(track);
            }
            return false;
        }
        Sequence sequence = new(nextSequence++, generation.Prompt, tracks, generation.StreamSet);
        sequence.SkipPrefix(shared);
        generation.Start(sequence, shared);
        running.Add(generation);
        sequences.Add(sequence);
        return true;
    }

    private int StreamsOf(int streamSet) => executor.Plan.Streams?.Sets[streamSet].Count ?? 1;

    /// <summary>
    /// Pages a sequence holds on average from now to its end: what its tokens fill, and a page begun in every slot. Sequences are at different places of
    /// their lives, so the ends of all at once would leave half of the pool unused.
    /// </summary>
    private double ExpectedPages(ActiveGeneration generation)
    {
        int now = generation.Sequence?.Count ?? generation.Prompt.Length, end = generation.Prompt.Length + generation.MaxTokens;
        return StreamsOf(generation.StreamSet) * ((now + end) * 0.5 * pagesPerToken + 0.5 * cache.SlotCount);
    }

    private void DropCancelled()
    {
        for (int i = running.Count - 1; i >= 0; i--)
        {
            if (running[i].Cancelled)
            {
                running[i].Stream.Complete();
                executor.Drop(sequences[i].Id);
                Keep(i);
            }
        }
    }

    private void Keep(int index)
    {
        if (sharesPrefixes)
        {
            prefixes.Keep(sequences[index]);
        }
        Remove(index);
    }

    private void Remove(int index)
    {
        foreach (KvTrack track in sequences[index].Tracks)
        {
            cache.Release(track);
        }
        running.RemoveAt(index);
        sequences.RemoveAt(index);
    }

    /// <summary>Ends everything that is running or waiting with an error.</summary>
    private void Fail(Exception error)
    {
        for (int i = running.Count - 1; i >= 0; i--)
        {
            running[i].Stream.Complete(error);
            executor.Drop(sequences[i].Id);
            Remove(i);
        }
        while (preempted.TryPop(out ActiveGeneration? stopped))
        {
            stopped.Stream.Complete(error);
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
