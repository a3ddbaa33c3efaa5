namespace Engine.Execution;

/// <summary>Which rows run next: a pure function of the sequences, without a model or a device.</summary>
public static class Scheduler
{
    /// <summary>
    /// Fills <paramref name="plan"/> with at most <paramref name="maxRows"/> rows. Sequences that decode come first, one row each, so that a long
    /// prompt never stalls them; what is left goes to prompts in order, in chunks. Logits are asked for a sequence's last token only.
    /// </summary>
    /// <param name="plan">Emptied and filled.</param>
    /// <param name="cache">Where the sequences' keys and values are; room for them is already reserved.</param>
    /// <param name="sequences">The running sequences; <see cref="Sequence.PlannedRows"/> is set on each.</param>
    /// <param name="maxRows">Room in the step.</param>
    /// <param name="planned">Emptied and filled with the sequence of each track of the plan.</param>
    public static void Fill(StepPlan plan, KvCache cache, IReadOnlyList<Sequence> sequences, int maxRows, List<Sequence> planned)
    {
        plan.Clear();
        planned.Clear();
        int room = maxRows;
        for (int i = 0; i < sequences.Count; i++)
        {
            Sequence sequence = sequences[i];
            sequence.PlannedRows = sequence.Pending == 1 && room > 0 ? 1 : 0;
            room -= sequence.PlannedRows;
        }
        for (int i = 0; i < sequences.Count; i++)
        {
            Sequence sequence = sequences[i];
            if (sequence.Pending > 1)
            {
                sequence.PlannedRows = Math.Min(room, sequence.Pending);
                room -= sequence.PlannedRows;
            }
            if (sequence.PlannedRows > 0)
            {
                Add(plan, cache, sequence);
                planned.Add(sequence);
            }
        }
    }

    private static void Add(StepPlan plan, KvCache cache, Sequence sequence)
    {
        cache.AddTrack(plan, sequence.Track, sequence.PlannedRows, sequence.Id);
        int last = sequence.Count - 1;
        for (int position = sequence.Processed; position < sequence.Processed + sequence.PlannedRows; position++)
        {
            plan.AddRow(position, sequence.Tokens[position], logits: position == last);
        }
    }
}
