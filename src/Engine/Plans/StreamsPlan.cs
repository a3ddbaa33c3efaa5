using System.Collections.Immutable;

namespace Engine.Plans;

/// <summary>
/// Parallel scaling (Chen et al. 2025, ParScale): a token runs as P streams that differ in a learned key and value prefix per layer, and a gate mixes their
/// final hidden states. Several sets may share one backbone; a sequence uses one.
/// </summary>
/// <param name="Sets">The sets; the first is the one used where none is asked for. A set of one stream is the plain model.</param>
public sealed record StreamsPlan(ImmutableArray<StreamSetPlan> Sets);

/// <summary>What P streams add to a backbone.</summary>
public sealed record StreamSetPlan
{
    /// <summary>P.</summary>
    public required int Count { get; init; }

    /// <summary>Tokens of a prefix; 0 where there is one stream.</summary>
    public required int PrefixTokens { get; init; }

    /// <summary>The prefixes of every step of the <see cref="LayerMap"/>; empty where there is one stream.</summary>
    public required ImmutableArray<StreamPrefixPlan> Prefixes { get; init; }

    /// <summary>Mixes the streams; null where there is one.</summary>
    public required StreamGatePlan? Gate { get; init; }
}

/// <summary>Keys and values that every query of a stream sees before its tokens'; keys are not rotated.</summary>
/// <param name="Keys">[P, kvHeads, prefixTokens, headDim].</param>
/// <param name="Values">Likewise.</param>
public sealed record StreamPrefixPlan(WeightRef Keys, WeightRef Values);

/// <summary>
/// w = (1 − ε)·softmax(W₂·silu(W₀·c + b₀) + b₂) + ε / P with c[h·P + p] = element h of stream p's hidden state after the final norm; u = Σ wₚ·yₚ.
/// </summary>
/// <param name="In">W₀, b₀: hidden × P → hidden.</param>
/// <param name="Out">W₂, b₂: hidden → P.</param>
/// <param name="Smoothing">ε.</param>
public sealed record StreamGatePlan(LinearPlan In, LinearPlan Out, float Smoothing);
