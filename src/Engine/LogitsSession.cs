using Engine.Execution;
using Engine.Generation;

namespace Engine;

/// <summary>Takes the logits of one token: <paramref name="index"/> counts the ids fed; the span [vocabulary] may be overwritten and is only valid during the call.</summary>
public delegate void LogitsConsumer(int index, Span<float> logits);

/// <summary>
/// One sequence that is fed token by token or in chunks and gives back logits. Shares the model with running generations. Dispose it to free its pages.
/// </summary>
public sealed class LogitsSession : IDisposable
{
    private static int lastId;

    private readonly int id = Interlocked.Decrement(ref lastId); // generations count upwards from 0
    private readonly Executor executor;
    private readonly KvCache cache;
    private readonly GenerationLoop loop;
    private readonly StepPlan plan;
    private readonly KvTrack[] tracks;
    private readonly List<int> depths = [];
    private readonly int contextLength;
    private readonly int streamSet;
    private bool disposed;

    internal LogitsSession(Executor executor, KvCache cache, GenerationLoop loop, int contextLength, int streamSet)
    {
        this.executor = executor;
        this.cache = cache;
        this.loop = loop;
        this.contextLength = contextLength;
        this.streamSet = streamSet;
        plan = new StepPlan(cache.SlotCount);
        tracks = cache.NewTracks(executor.Plan.Streams?.Sets[streamSet].Count ?? 1);
    }

    /// <summary>Tokens fed so far.</summary>
    public int Length { get; private set; }

    /// <summary>For every token fed, how many recursions it went through; 1 in a model without recursion.</summary>
    public IReadOnlyList<int> Depths => depths;

    /// <summary>Tokens that each KV slot holds: fewer in the slots of depths that not every token reaches.</summary>
    public IReadOnlyList<int> TokensPerSlot => [.. Enumerable.Range(0, cache.SlotCount).Select(slot => tracks.Sum(track => track.Length(slot)))];

    /// <summary>
    /// Feeds tokens and hands over the logits of every one of them from <paramref name="firstLogits"/> on.
    /// </summary>
    /// <param name="ids">The next tokens.</param>
    /// <param name="firstLogits">Index into <paramref name="ids"/> of the first token whose logits are wanted; ids.Length − 1 for the last only.</param>
    /// <param name="consume">Takes (index into ids, logits [vocabulary]); the span is only valid during the call.</param>
    /// <exception cref="EngineException">An id is outside the vocabulary, the context is full, or the KV cache is.</exception>
    public void Feed(ReadOnlySpan<int> ids, int firstLogits, LogitsConsumer consume)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        ArgumentNullException.ThrowIfNull(consume);
        ArgumentOutOfRangeException.ThrowIfNegative(firstLogits);
        LanguageModel.CheckIds(ids, executor.Plan.VocabularySize);
        if (Length + ids.Length > contextLength)
        {
            throw new EngineException($"{Length + ids.Length} tokens do not fit the context of {contextLength}", item: "ids");
        }
        int chunk = executor.MaxRows / tracks.Length;
        for (int start = 0; start < ids.Length; start += chunk)
        {
            FeedChunk(ids.Slice(start, Math.Min(chunk, ids.Length - start)), start, firstLogits, consume);
        }
    }

    /// <summary>Feeds tokens, at least one, and returns the logits of the last one, [vocabulary].</summary>
    /// <exception cref="EngineException">An id is outside the vocabulary, the context is full, or the KV cache is.</exception>
    public float[] Feed(params ReadOnlySpan<int> ids)
    {
        ArgumentOutOfRangeException.ThrowIfZero(ids.Length);
        float[] last = new float[executor.Plan.VocabularySize];
        Feed(ids, ids.Length - 1, (_, logits) => logits.CopyTo(last));
        return last;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (!disposed)
        {
            disposed = true;
            lock (loop.ExecutorGate)
            {
                foreach (KvTrack track in tracks)
                {
                    loop.Release(track);
                }
            }
        }
    }

    private void FeedChunk(ReadOnlySpan<int> ids, int start, int firstLogits, LogitsConsumer consume)
    {
        lock (loop.ExecutorGate)
        {
            loop.ThrowIfStopping();
            if (!loop.TryReserve(tracks, ids.Length))
            {
                throw new EngineException(
                    $"{ids.Length} more tokens do not fit the KV cache: {cache.FreePages} of {cache.PageCount} pages are free", item: "ids");
            }
            int before = Length, finished = 0;
            FinishedRowConsumer take = (in FinishedRow row, Span<float> logits) =>
            {
                finished++;
                depths.Add(row.Depth);
                if (!logits.IsEmpty)
                {
                    consume(start + row.Position - before, logits);
                }
            };
            try
            {
                for (bool enter = true; finished < ids.Length; enter = false)
                {
                    Fill(enter ? ids : [], start, firstLogits, ids.Length);
                    executor.Step(plan, cache.Storage, take);
                    for (int stream = 0; stream < tracks.Length; stream++)
                    {
                        cache.Advance(tracks[stream], plan, stream);
                    }
                }
            }
            catch
            {
                executor.Drop(id);
                throw;
            }
            foreach (KvTrack track in tracks)
            {
                cache.Trim(track);
            }
            Length += ids.Length;
        }
    }

    /// <summary>A step over all streams in which some ids enter, or none.</summary>
    private void Fill(ReadOnlySpan<int> ids, int start, int firstLogits, int rows)
    {
        plan.Clear();
        for (int stream = 0; stream < tracks.Length; stream++)
        {
            cache.AddTrack(plan, tracks[stream], rows, id, stream, streamSet);
            for (int i = 0; i < ids.Length; i++)
            {
                plan.AddRow(Length + i, ids[i], logits: stream == 0 && start + i >= firstLogits);
            }
        }
    }
}
