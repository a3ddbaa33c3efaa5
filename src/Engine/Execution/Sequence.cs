namespace Engine.Execution;

/// <summary>The tokens of one sequence and how many of them the model has seen.</summary>
public sealed class Sequence
{
    private readonly KvTrack[] tracks;
    private int[] tokens;

    /// <summary>Starts a sequence.</summary>
    /// <param name="id">Identity; no two sequences that an executor works on have the same.</param>
    /// <param name="prompt">Its first tokens; at least one.</param>
    /// <param name="tracks">Where the keys and values of each stream go; may already hold a shared prefix of the prompt.</param>
    /// <param name="streamSet">The set of streams.</param>
    public Sequence(int id, ReadOnlySpan<int> prompt, KvTrack[] tracks, int streamSet = 0)
    {
        ArgumentOutOfRangeException.ThrowIfZero(prompt.Length);
        ArgumentOutOfRangeException.ThrowIfZero(tracks.Length);
        Id = id;
        tokens = new int[Math.Max(64, prompt.Length * 2)];
        prompt.CopyTo(tokens);
        Count = prompt.Length;
        this.tracks = tracks;
        StreamSet = streamSet;
    }

    /// <summary>Identity.</summary>
    public int Id { get; }

    /// <summary>All tokens, prompt and generated.</summary>
    public ReadOnlySpan<int> Tokens => tokens.AsSpan(0, Count);

    /// <summary>Tokens in all.</summary>
    public int Count { get; private set; }

    /// <summary>Tokens that have entered the model, or were found in a shared prefix.</summary>
    public int Entered { get; private set; }

    /// <summary>Tokens that have gone through the model.</summary>
    public int Finished { get; private set; }

    /// <summary>Tokens that have still to enter.</summary>
    public int Pending => Count - Entered;

    /// <summary>Tokens that have entered and are still inside a recursion.</summary>
    public int InFlight => Entered - Finished;

    /// <summary>Keys and values, per stream.</summary>
    public ReadOnlySpan<KvTrack> Tracks => tracks;

    /// <summary>The set of streams.</summary>
    public int StreamSet { get; }

    /// <summary>Tokens that enter in the step being run.</summary>
    public int Planned { get; internal set; }

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
    public void SkipPrefix(int count) => Entered = Finished = count;

    /// <summary>Records that a token has gone through the model.</summary>
    public void Finish() => Finished++;

    /// <summary>Records that a step has run.</summary>
    /// <param name="cache">The pool.</param>
    /// <param name="plan">What was run.</param>
    /// <param name="firstTrack">The sequence's first track in it.</param>
    public void CompleteStep(KvCache cache, StepPlan plan, int firstTrack)
    {
        Entered += Planned;
        Planned = 0;
        for (int stream = 0; stream < tracks.Length; stream++)
        {
            cache.Advance(tracks[stream], plan, firstTrack + stream);
        }
    }

    /// <summary>Forgets all keys and values, so that every token enters again.</summary>
    public void Restart(KvCache cache)
    {
        for (int stream = 0; stream < tracks.Length; stream++)
        {
            cache.Release(tracks[stream]);
        }
        Entered = Finished = Planned = 0;
    }
}
