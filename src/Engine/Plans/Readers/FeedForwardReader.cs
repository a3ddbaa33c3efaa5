using System.Collections.Immutable;

namespace Engine.Plans.Readers;

/// <summary>What the linears of a gated feed-forward are called.</summary>
/// <param name="Gate">hidden → width, through the non-linearity.</param>
/// <param name="Up">hidden → width.</param>
/// <param name="Down">width → hidden.</param>
internal sealed record FeedForwardNames(string Gate, string Up, string Down)
{
    /// <summary>As in most models.</summary>
    public static FeedForwardNames Usual { get; } = new("gate_proj", "up_proj", "down_proj");

    /// <summary>As in Meta's and Mistral's own files.</summary>
    public static FeedForwardNames Numbered { get; } = new("w1", "w3", "w2");

    /// <summary>All that are known.</summary>
    public static ImmutableArray<FeedForwardNames> All { get; } = [Usual, Numbered];
}

/// <summary>Makes plans of gated feed-forwards.</summary>
/// <param name="Tensors">The tensors.</param>
/// <param name="Activation">Their non-linearity.</param>
/// <param name="Hidden">Their input width, and that of their output where <see cref="Outputs"/> says no other.</param>
/// <param name="Clamp">Makes <see cref="Activation.SwiGlu"/> a clamped one; null where it is not.</param>
internal sealed record FeedForwardReader(TensorCatalog Tensors, Activation Activation, int Hidden, SwiGluClamp? Clamp = null)
{
    /// <summary>Width of their output where it is not that of the input.</summary>
    public int? Outputs { get; init; }

    /// <summary>The feed-forward of three linears under a module's name, each in a form that <see cref="LowRankReader"/> reads.</summary>
    /// <param name="module">What the names begin with.</param>
    /// <param name="width">Inner width.</param>
    /// <param name="biasRequired">Biases must exist; otherwise they are taken where they do.</param>
    /// <param name="names">Names of the linears; <see cref="FeedForwardNames.Usual"/> where left out.</param>
    public FeedForwardPlan Read(string module, int width, bool biasRequired = false, FeedForwardNames? names = null)
    {
        (string gate, string up, string down) = names ?? FeedForwardNames.Usual;
        return Plan(
            width,
            LowRankReader.Part(Tensors, $"{module}.{gate}", width, Hidden, biasRequired),
            LowRankReader.Part(Tensors, $"{module}.{up}", width, Hidden, biasRequired),
            LowRankReader.Part(Tensors, $"{module}.{down}", Outputs ?? Hidden, width, biasRequired));
    }

    /// <summary>The feed-forward of three parts.</summary>
    public FeedForwardPlan Plan(int width, LinearPart gate, LinearPart up, LinearPart down) =>
        new(Clamp is not null && Activation == Activation.SwiGlu ? Activation.ClampedSwiGlu : Activation, width,
            new LinearPlan(Hidden, [gate, up]), new LinearPlan(width, [down]))
        {
            Clamp = Clamp ?? SwiGluClamp.Default,
        };

    /// <summary>The inner width as the shapes of a module's three matrices say it, or null where none is stored.</summary>
    /// <exception cref="EngineException">It is more than this engine can address.</exception>
    public int? StoredWidth(string module, FeedForwardNames names)
    {
        string gate = $"{module}.{names.Gate}.weight";
        return Agreed(gate, Shape(names.Gate).Outputs, Shape(names.Up).Outputs, Shape(names.Down).Inputs);

        (long? Outputs, long? Inputs) Shape(string linear) => LowRankReader.ShapeOf(Tensors, $"{module}.{linear}");
    }

    /// <summary>
    /// The width that two of three sources agree on, so that a check against it names the one that does not fit; the first that is known where no two do.
    /// </summary>
    /// <exception cref="EngineException">It is more than this engine can address; <paramref name="tensor"/> is to blame.</exception>
    public int? Agreed(string tensor, long? gate, long? up, long? down) => (up is not null && up == down ? up : gate ?? up ?? down) switch
    {
        null => null,
        <= ConfigReader.LargestCount and { } width => (int)width,
        { } width => throw new EngineException(
            $"feed-forwards of {width} elements are more than this engine can address", Tensors.Checkpoint.Path, tensor),
    };
}
