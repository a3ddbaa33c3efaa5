namespace Engine.Sampling;

/// <summary>
/// Keeps the smallest set whose probability is at least p of the candidates whose surprise −log p_i is nearest to the entropy of the
/// distribution (Meister et al. 2022, "Locally typical sampling").
/// </summary>
internal sealed class Typical(float p) : ICandidateStep
{
    public void Apply(ref Candidates candidates)
    {
        candidates.MakeSparse();
        double sum = candidates.SumOfExponentials();
        double expectedLogit = 0;
        foreach (ulong key in candidates.Keys)
        {
            double weight = candidates.Weight(key);
            // 0 · log 0 is 0 in an entropy.
            expectedLogit += weight > 0 ? weight * ((double)CandidateKey.Value(key) - candidates.Maximum) : 0;
        }
        expectedLogit /= sum;

        // |−log p_i − H| = |logit_i − E[logit]|: the normaliser is in both and cancels. Keys sort descending, hence the sign.
        Span<ulong> order = candidates.Scratch;
        for (int i = 0; i < order.Length; i++)
        {
            double deviation = Math.Abs((double)CandidateKey.Value(candidates.Keys[i]) - candidates.Maximum - expectedLogit);
            order[i] = CandidateKey.Pack((float)-deviation, i);
        }

        double needed = p * sum;
        double reached = 0;
        int kept = 0;
        for (int sorted = 0, guess = TopP.FirstGuess; kept < order.Length && reached < needed; guess *= TopP.Growth)
        {
            int count = Math.Min(guess, order.Length);
            CandidateKey.SortFront(order, sorted, count);
            for (sorted = count; kept < sorted && reached < needed; kept++)
            {
                reached += candidates.Weight(candidates.Keys[CandidateKey.Index(order[kept])]);
            }
        }
        candidates.Keep(order[..kept]);
    }
}
