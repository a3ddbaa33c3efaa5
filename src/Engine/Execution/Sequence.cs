namespace Engine.Execution;

/// <summary>The tokens of one sequence and how many of them the model has seen.</summary>
public sealed class Sequence
{
    private int[] tokens;

    /// <summary>Starts a sequence.</summary>
    /// <param name="id">Identity, for tracing.</param>
    /// <param name="prompt">Its first tokens; at least one.</param>
    /// <param name="track">Where its keys and values go; may already hold a shared prefix of the prompt.</param>
    public Sequence(int id, ReadOnlySpan<int> prompt, KvTrack track)
    {
        ArgumentOutOfRangeException.ThrowIfZero(prompt.Length);
        Id = id;
        tokens = new int[Math.Max(64, prompt.Length * 2)];
        prompt.CopyTo(tokens);
        Count = prompt.Length;
        Track = track;
    }

    /// <summary>Identity, for tracing.</summary>
    public int Id { get; }

    /// <summary>All tokens, prompt and generated.</summary>
    public ReadOnlySpan<int> Tokens => tokens.AsSpan(0, Count);

    /// <summary>Tokens in all.</summary>
    public int Count { get; private set; }

    /// <summary>Tokens whose keys and values are in the cache.</summary>
    public int Processed { get; private set; }

    /// <summary>Tokens the model has still to see.</summary>
    public int Pending => Count - Processed;

    /// <summary>Keys and values.</summary>
    public KvTrack Track { get; }

    /// <summary>Rows that this sequence has in the step being run.</summary>
    public int PlannedRows { get; internal set; }

    /// <summary>Appends a generated token.</summary>
    public void Append(int token)
    {
        if (Count == tokens.Length)
        {
            Array.Resize(ref tokens, Count * 2);
        }
        tokens[Count++] = token;
    }

    /// <summary>Records that the first tokens came from a shared prefix.</summary>
    public void SkipPrefix(int count) => Processed = count;

    /// <summary>Records that the planned rows have run.</summary>
    public void CompleteStep()
    {
        Processed += PlannedRows;
        Track.Advance(PlannedRows);
        PlannedRows = 0;
    }
}
