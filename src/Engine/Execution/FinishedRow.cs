namespace Engine.Execution;

/// <summary>A token that has gone through the whole model.</summary>
/// <param name="sequence">Identity of its sequence (<see cref="Track.Sequence"/>).</param>
/// <param name="position">Position in the sequence.</param>
/// <param name="depth">Recursions it went through; 1 in a model without recursion.</param>
/// <param name="streamWeights">What the gate gave each stream, or empty.</param>
public readonly ref struct FinishedRow(int sequence, int position, int depth, ReadOnlySpan<float> streamWeights)
{
    /// <summary>Identity of its sequence (<see cref="Track.Sequence"/>).</summary>
    public int Sequence { get; } = sequence;

    /// <summary>Position in the sequence.</summary>
    public int Position { get; } = position;

    /// <summary>Recursions it went through; 1 in a model without recursion.</summary>
    public int Depth { get; } = depth;

    /// <summary>What the gate gave each stream, [P]; empty where there is one stream or no logits were asked for.</summary>
    public ReadOnlySpan<float> StreamWeights { get; } = streamWeights;
}

/// <summary>
/// Takes every token that a step finishes: a sequence's one by one in position order, but those of different sequences perhaps at the same time on different
/// threads. The logits [vocabulary] are empty where none were asked for, and may be overwritten.
/// </summary>
public delegate void FinishedRowConsumer(in FinishedRow row, Span<float> logits);
