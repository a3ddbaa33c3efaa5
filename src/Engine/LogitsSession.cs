using Engine.Execution;
using Engine.Generation;

namespace Engine;

/// <summary>
/// One sequence that is fed token by token or in chunks and gives back logits. Shares the model with running generations. Dispose it to free its pages.
/// </summary>
public sealed class LogitsSession : IDisposable
{
    private readonly Executor executor;
    private readonly KvCache cache;
    private readonly GenerationLoop loop;
    private readonly StepPlan plan;
    private readonly KvTrack track;
    private readonly int contextLength;
    private bool disposed;

    internal LogitsSession(Executor executor, KvCache cache, GenerationLoop loop, int contextLength)
    {
        this.executor = executor;
        this.cache = cache;
        this.loop = loop;
        this.contextLength = contextLength;
        plan = new StepPlan(cache.SlotCount);
        track = new KvTrack(cache.SlotCount);
    }

    /// <summary>Tokens fed so far.</summary>
    public int Length { get; private set; }

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
        for (int start = 0; start < ids.Length; start += executor.MaxRows)
        {
            int count = Math.Min(executor.MaxRows, ids.Length - start);
            FeedChunk(ids.Slice(start, count), start, firstLogits, consume);
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
                loop.Release(track);
            }
        }
    }

    private void FeedChunk(ReadOnlySpan<int> ids, int start, int firstLogits, LogitsConsumer consume)
    {
        lock (loop.ExecutorGate)
        {
            loop.ThrowIfStopping();
            if (!loop.TryReserve(track, ids.Length))
            {
                throw new EngineException(
                    $"{ids.Length} more tokens do not fit the KV cache: {cache.FreePages} of {cache.PageCount} pages are free", item: "ids");
            }
            plan.Clear();
            cache.AddTrack(plan, track, ids.Length, sequence: -1);
            for (int i = 0; i < ids.Length; i++)
            {
                plan.AddRow(Length + i, ids[i], logits: start + i >= firstLogits);
            }
            int first = Math.Max(firstLogits, start);
            executor.Step(plan, cache.Storage, (index, logits) => consume(first + index, logits));
            track.Advance(ids.Length);
            Length += ids.Length;
        }
    }
}
