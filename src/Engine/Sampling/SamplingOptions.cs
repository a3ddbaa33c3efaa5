namespace Engine.Sampling;

/// <summary>
/// How the next token is chosen. The steps run in this order, which is the default order of llama.cpp: logit bias, repetition,
/// frequency and presence penalty, top-k, typical, top-p, min-p, temperature, draw. So the truncations look at the distribution at
/// temperature 1, and each one at what the one before it left, renormalised. With <see cref="Temperature"/> 0 the likeliest token after
/// bias and penalties is taken and nothing is drawn.
/// </summary>
public sealed record SamplingOptions
{
    /// <summary>The likeliest token, always.</summary>
    public static SamplingOptions Greedy { get; } = new() { Temperature = 0f };

    /// <summary>Logits are divided by this; finite, ≥ 0. 0 is greedy.</summary>
    public float Temperature { get; init; } = 0.8f;

    /// <summary>Keeps this many of the likeliest tokens (Fan et al. 2018); 0 keeps all.</summary>
    public int TopK { get; init; } = 40;

    /// <summary>
    /// Keeps the smallest set of likeliest tokens whose probability reaches this (Holtzman et al. 2020); in (0, 1], 1 keeps all.
    /// </summary>
    public float TopP { get; init; } = 0.95f;

    /// <summary>Keeps tokens at least this fraction as likely as the likeliest (Nguyen et al. 2024); in [0, 1], 0 keeps all.</summary>
    public float MinP { get; init; } = 0.05f;

    /// <summary>
    /// Keeps the smallest set whose probability reaches this of the tokens whose surprise is nearest to the entropy (Meister et al. 2022);
    /// in (0, 1], 1 keeps all.
    /// </summary>
    public float TypicalP { get; init; } = 1f;

    /// <summary>
    /// A recent token's logit is divided by this where positive and multiplied where negative (CTRL, Keskar et al. 2019); &gt; 0, 1 is
    /// off.
    /// </summary>
    public float RepetitionPenalty { get; init; } = 1f;

    /// <summary>How many of the sequence's last tokens, prompt included, the three penalties look at; −1 is all of them.</summary>
    public int PenaltyWindow { get; init; } = 64;

    /// <summary>Subtracted from the logit of every recent token (OpenAI API); 0 is off.</summary>
    public float PresencePenalty { get; init; }

    /// <summary>Subtracted from the logit of every recent token once per occurrence (OpenAI API); 0 is off.</summary>
    public float FrequencyPenalty { get; init; }

    /// <summary>Added to the logits of the tokens named (OpenAI API); −∞ forbids a token.</summary>
    public IReadOnlyDictionary<int, float>? LogitBias { get; init; }

    /// <summary>The n-th draw is a function of this and n alone. Null takes a random one.</summary>
    public ulong? Seed { get; init; }

    /// <summary>How many of the likeliest tokens to report with each token; 0 is none.</summary>
    public int Logprobs { get; init; }

    /// <summary>Checks every option.</summary>
    /// <param name="vocabularySize">Tokens of the model, or null where not known yet.</param>
    /// <exception cref="EngineException">An option is out of range; the message names it.</exception>
    public void Validate(int? vocabularySize = null)
    {
        Require(float.IsFinite(Temperature) && Temperature >= 0, nameof(Temperature), "a finite number ≥ 0", Temperature);
        Require(TopK >= 0, nameof(TopK), "a number ≥ 0 (0 keeps all)", TopK);
        Require(TopP is > 0 and <= 1, nameof(TopP), "a number in (0, 1]", TopP);
        Require(MinP is >= 0 and <= 1, nameof(MinP), "a number in [0, 1]", MinP);
        Require(TypicalP is > 0 and <= 1, nameof(TypicalP), "a number in (0, 1]", TypicalP);
        Require(float.IsFinite(RepetitionPenalty) && RepetitionPenalty > 0, nameof(RepetitionPenalty), "a finite number > 0",
            RepetitionPenalty);
        Require(PenaltyWindow >= -1, nameof(PenaltyWindow), "a number ≥ −1 (−1 is the whole sequence)", PenaltyWindow);
        Require(float.IsFinite(PresencePenalty), nameof(PresencePenalty), "a finite number", PresencePenalty);
        Require(float.IsFinite(FrequencyPenalty), nameof(FrequencyPenalty), "a finite number", FrequencyPenalty);
        Require(Logprobs >= 0, nameof(Logprobs), "a number ≥ 0", Logprobs);
        foreach ((int id, float bias) in LogitBias ?? System.Collections.Frozen.FrozenDictionary<int, float>.Empty)
        {
            bool known = id >= 0 && (vocabularySize is not { } size || id < size);
            Require(known, nameof(LogitBias), vocabularySize is { } end ? $"token ids in 0 … {end - 1}" : "token ids ≥ 0", id);
            Require(!float.IsNaN(bias) && bias < float.PositiveInfinity, nameof(LogitBias), $"a finite number or −∞ for token {id}", bias);
        }
    }

    private static void Require<T>(bool holds, string option, string expected, T found)
    {
        if (!holds)
        {
            throw new EngineException($"expected {expected}, found {found}", item: option);
        }
    }
}
