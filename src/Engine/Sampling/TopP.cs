namespace Engine.Sampling;

/// <summary>
/// Keeps the nucleus: the smallest set of likeliest candidates whose probability is at least p (Holtzman et al. 2020, "The curious case
/// of neural text degeneration").
/// </summary>
internal sealed class TopP(float p) : ICandidateStep
{
    /// <summary>
    /// The nucleus is usually small: so many candidates are put in order at first, and several times as many when they do not suffice.
    /// </summary>
    internal const int FirstGuess = 32, Growth = 4;

    public void Apply(ref Candidates candidates)
    {
        double sum = candidates.SumOfExponentials();
        if (candidates.IsDense)
        {
            // Tokens below (1 − p) / n have less than 1 − p together, so the nucleus is complete before the first of them. Half of it
            // is ample for rounding.
            double floor = sum * (1.0 - p) / candidates.Count / 2;
            candidates.KeepAtLeast(candidates.Maximum + (float)Math.Log(floor));
        }
        double needed = p * sum;
        double reached = 0;
        int nucleus = 0;
        for (int guess = FirstGuess; nucleus < candidates.Count; guess *= Growth)
        {
            candidates.Sort(guess);
            for (; nucleus < candidates.Sorted; nucleus++)
            {
                reached += candidates.Weight(candidates.Keys[nucleus]);
                if (reached >= needed)
                {
                    candidates.Truncate(nucleus + 1);
                    return;
                }
            }
        }
    }
}
