using System.Collections.Immutable;

namespace Engine.Plans;

/// <summary>
/// A run of <see cref="LayerMap.Steps"/> that repeats: depth d (from 0) is the <see cref="StepsPerDepth"/> steps from
/// <see cref="FirstStep"/> + d · <see cref="StepsPerDepth"/> on. Steps at the same place of every depth have slots of the same shape; slots of depths are as
/// far apart as their steps, or the same where keys and values are shared.
/// </summary>
public sealed record RecursionPlan
{
    /// <summary>The first step of depth 0; steps before it run once for every token.</summary>
    public required int FirstStep { get; init; }

    /// <summary>Steps of one depth.</summary>
    public required int StepsPerDepth { get; init; }

    /// <summary>How often the steps are repeated at most.</summary>
    public required int Depths { get; init; }

    /// <summary>Decides how deep a token goes (Bae et al. 2025, Mixture-of-Recursions), or null where all go through all depths.</summary>
    public DepthRouterPlan? Router { get; init; }

    /// <summary>One past the last step of the last depth; steps from it on run once for every token.</summary>
    public int EndStep => FirstStep + StepsPerDepth * Depths;
}

/// <summary>Who chooses: a depth its tokens, or a token its depth (Bae et al. 2025, section 2.2.1).</summary>
public enum DepthRouterKind
{
    /// <summary>Each depth has a router that keeps a part of the tokens that the depth before it kept.</summary>
    ExpertChoice,
    /// <summary>One router gives each token its depth before the first.</summary>
    TokenChoice,
}

/// <summary>How a router's output becomes a weight.</summary>
public enum RouterScore
{
    /// <summary>w = z.</summary>
    None,
    /// <summary>w = alpha / (1 + exp(−z)).</summary>
    Sigmoid,
    /// <summary>w = alpha · tanh z.</summary>
    Tanh,
    /// <summary>w = alpha · softmax z over the depths (token choice).</summary>
    Softmax,
}

/// <summary>A router of one or two linears; between two stands the exact GELU.</summary>
/// <param name="In">hidden → outputs, or hidden → inner where there is a second.</param>
/// <param name="Out">inner → outputs, or null.</param>
public sealed record RouterNetwork(LinearPlan In, LinearPlan? Out = null)
{
    /// <summary>Values per token.</summary>
    public int Outputs => (Out ?? In).Outputs;
}

/// <summary>How tokens are given their depths, and how a depth's output y joins the residual stream x.</summary>
public sealed record DepthRouterPlan
{
    /// <summary>Who chooses.</summary>
    public required DepthRouterKind Kind { get; init; }

    /// <summary>Expert choice: one network per depth with one output. Token choice: one network with one output per depth.</summary>
    public required ImmutableArray<RouterNetwork> Networks { get; init; }

    /// <summary>Expert choice: networks per depth that predict membership from x alone (<c>sampling: aux_router</c>); else empty.</summary>
    public ImmutableArray<RouterNetwork> Auxiliary { get; init; } = [];

    /// <summary>What the input of <see cref="Networks"/> is divided by.</summary>
    public float Temperature { get; init; } = 1f;

    /// <summary>From z to w.</summary>
    public required RouterScore Score { get; init; }

    /// <summary>Factor on the score; plays no part in <see cref="RouterScore.None"/>.</summary>
    public float Alpha { get; init; } = 1f;

    /// <summary>x += w·y; otherwise x += y.</summary>
    public bool Weighted { get; init; } = true;

    /// <summary>Expert choice: the part of a sequence's tokens that each depth takes in training.</summary>
    public ImmutableArray<double> Capacities { get; init; } = [];

    /// <summary>Token choice: added to the weights where the depth is chosen, and nowhere else (loss-free balancing); else empty.</summary>
    public ImmutableArray<float> SelectionBias { get; init; } = [];
}
