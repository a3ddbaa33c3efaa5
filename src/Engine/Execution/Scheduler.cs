namespace Engine.Execution;

/// <summary>Which tokens enter next: pure functions of the sequences, without a model or a device.</summary>
public static class Scheduler
{
    /// <summary>
    /// Decides how many tokens of each sequence enter, within <paramref name="maxRows"/> rows together with those that are inside a recursion. Sequences that
    /// decode come first, one token each, so that a long prompt never stalls them; what is left goes to prompts in order, in chunks.
    /// </summary>
    /// <param name="sequences">The running sequences; <see cref="Sequence.Planned"/> is set on each.</param>
    /// <param name="maxRows">Room in the step. A token is a row per stream.</param>
    /// <param name="wholePrompts">
    /// What enters decides together, so a sequence enters with all its tokens or not at all, and not while others of its tokens are inside (the official
    /// routing of Mixture-of-Recursions).
    /// </param>
    public static void Assign(IReadOnlyList<Sequence> sequences, int maxRows, bool wholePrompts = false)
    {
        int room = maxRows;
        for (int i = 0; i < sequences.Count; i++)
        {
            Sequence sequence = sequences[i];
            sequence.Planned = 0;
            if (sequence.Pending > 1 || sequence.InFlight > 1)
            {
                room -= sequence.InFlight * sequence.Tracks.Length;
            }
            else if (room >= sequence.Tracks.Length)
            {
                // A sequence that decodes has its place whether its token enters now or is still inside.
                sequence.Planned = MayEnter(sequence) ? sequence.Pending : 0;
                room -= sequence.Tracks.Length;
            }
        }
        for (int i = 0; i < sequences.Count && room > 0; i++)
        {
            Sequence sequence = sequences[i];
            if (sequence.Planned == 0 && sequence.Pending > 0 && MayEnter(sequence))
            {
                int fits = room / sequence.Tracks.Length;
                sequence.Planned = fits >= sequence.Pending ? sequence.Pending : wholePrompts ? 0 : fits;
                room -= sequence.Planned * sequence.Tracks.Length;
            }
        }

        bool MayEnter(Sequence sequence) => !wholePrompts || sequence.InFlight == 0;
    }

    /// <summary>
    /// Fills <paramref name="plan"/> with the tokens that <see cref="Assign"/> let in, and with the tracks of those that are inside. Logits are asked for a
    /// sequence's last token only.
    /// </summary>
    /// <param name="plan">Emptied and filled.</param>
    /// <param name="cache">Where the sequences' keys and values are; room for them is already reserved.</param>
    /// <param name="sequences">The running sequences.</param>
    /// <param name="planned">Emptied and filled with the sequences that take part, in order; each has a track per stream.</param>
    public static void Fill(StepPlan plan, KvCache cache, IReadOnlyList<Sequence> sequences, List<Sequence> planned)
    {
        plan.Clear();
        planned.Clear();
        for (int i = 0; i < sequences.Count; i++)
        {
            if (sequences[i].Planned + sequences[i].InFlight > 0)
            {
                Add(plan, cache, sequences[i]);
                planned.Add(sequences[i]);
            }
        }
    }

    /// <summary>Records what the step did to every sequence that took part.</summary>
    public static void Complete(StepPlan plan, KvCache cache, List<Sequence> planned)
    {
        int track = 0;
        for (int i = 0; i < planned.Count; i++)
        {
            planned[i].CompleteStep(cache, plan, track);
            track += planned[i].Tracks.Length;
        }
    }

    private static void Add(StepPlan plan, KvCache cache, Sequence sequence)
    {
        int last = sequence.Count - 1;
        for (int stream = 0; stream < sequence.Tracks.Length; stream++)
        {
            cache.AddTrack(plan, sequence.Tracks[stream], sequence.InFlight + sequence.Planned, sequence.Id, stream, sequence.StreamSet);
            for (int position = sequence.Entered; position < sequence.Entered + sequence.Planned; position++)
            {
                plan.AddRow(position, sequence.Tokens[position], logits: position == last && stream == 0);
            }
        }
    }
}
