namespace Engine.Sampling;

/// <summary><c>l ← l + bias</c> for the tokens named; −∞ forbids a token (OpenAI API, <c>logit_bias</c>).</summary>
internal sealed class LogitBias : ILogitStep
{
    private readonly int[] ids;
    private readonly float[] biases;

    public LogitBias(IReadOnlyDictionary<int, float> bias)
    {
        ids = [.. bias.Keys];
        biases = [.. ids.Select(id => bias[id])];
    }

    public void Apply(Span<float> logits, ReadOnlySpan<TokenCount> recent)
    {
        for (int i = 0; i < ids.Length; i++)
        {
            logits[ids[i]] += biases[i];
        }
    }
}
