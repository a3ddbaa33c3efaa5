using System.Threading.Tasks.Sources;

namespace Engine.Generation;

/// <summary>
/// Hands tokens from the generation loop to one reader. Nothing is allocated per token: waiting reuses one value-task source, and the reader's
/// continuation runs on the thread pool so that the loop never runs a user's code.
/// </summary>
internal sealed class TokenStream : IValueTaskSource<bool>, IThreadPoolWorkItem
{
    private readonly Lock gate = new();
    private GeneratedToken[] ring = new GeneratedToken[32];
    private int first, count;
    private bool waiting, completed;
    private Exception? failure;
    private ManualResetValueTaskSourceCore<bool> core;

    /// <summary>Appends a token. Called by the loop.</summary>
    public void Write(in GeneratedToken token)
    {
        bool wake;
        lock (gate)
        {
            if (count == ring.Length)
            {
                GeneratedToken[] larger = new GeneratedToken[count * 2];
                for (int i = 0; i < count; i++)
                {
                    larger[i] = ring[(first + i) % count];
                }
                (ring, first) = (larger, 0);
            }
            ring[(first + count++) % ring.Length] = token;
            wake = TakeWaiter();
        }
        Wake(wake);
    }

    /// <summary>Ends the stream, with the reason if it failed. Later calls change nothing.</summary>
    public void Complete(Exception? error = null)
    {
        bool wake;
        lock (gate)
        {
            if (completed)
            {
                return;
            }
            (completed, failure) = (true, error);
            wake = TakeWaiter();
        }
        Wake(wake);
    }

    /// <summary>Takes the next token if there is one.</summary>
    public bool TryRead(out GeneratedToken token)
    {
        lock (gate)
        {
            if (count == 0)
            {
                token = default;
                return false;
            }
            token = ring[first];
            ring[first] = default;
            first = (first + 1) % ring.Length;
            count--;
            return true;
        }
    }

    /// <summary>Waits until there is a token (true) or the stream has ended (false, or its failure is thrown).</summary>
    public ValueTask<bool> WaitAsync()
    {
        lock (gate)
        {
            if (count > 0)
            {
                return new ValueTask<bool>(true);
            }
            if (completed)
            {
                return failure is null ? new ValueTask<bool>(false) : ValueTask.FromException<bool>(failure);
            }
            core.Reset();
            waiting = true;
            return new ValueTask<bool>(this, core.Version);
        }
    }

    void IThreadPoolWorkItem.Execute()
    {
        bool more;
        Exception? error;
        lock (gate)
        {
            more = count > 0;
            error = more ? null : failure;
        }
        if (error is null)
        {
            core.SetResult(more);
        }
        else
        {
            core.SetException(error);
        }
    }

    bool IValueTaskSource<bool>.GetResult(short token) => core.GetResult(token);

    ValueTaskSourceStatus IValueTaskSource<bool>.GetStatus(short token) => core.GetStatus(token);

    void IValueTaskSource<bool>.OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        core.OnCompleted(continuation, state, token, flags);

    private bool TakeWaiter()
    {
        bool taken = waiting;
        waiting = false;
        return taken;
    }

    private void Wake(bool wake)
    {
        if (wake)
        {
            ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
        }
    }
}
