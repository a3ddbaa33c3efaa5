using System.Collections.Immutable;
using Engine.Checkpoints;

namespace Engine.Plans;

/// <summary>A family of models that <see cref="ModelPlanReader"/> can turn into plans; help and documentation print this.</summary>
public sealed class ModelFamily
{
    internal ModelFamily(Func<Checkpoint, ModelPlan> read) => Read = read;

    /// <summary>The family's name, also <see cref="ModelPlan.Family"/>.</summary>
    public required string Name { get; init; }

    /// <summary>Values of <c>model_type</c> in config.json.</summary>
    public required ImmutableArray<string> ModelTypes { get; init; }

    /// <summary>Class names in <c>architectures</c> of config.json.</summary>
    public required ImmutableArray<string> Architectures { get; init; }

    /// <summary>Well-known models of the family.</summary>
    public required string Models { get; init; }

    /// <summary>What of the family is computed, in a line.</summary>
    public required string Supports { get; init; }

    /// <summary>
    /// Recognises checkpoints of the family that name another's model type, given model type and architecture; null where the names tell.
    /// </summary>
    internal Func<Checkpoint, string?, string?, bool>? Claims { get; init; }

    /// <summary>Makes the plan.</summary>
    internal Func<Checkpoint, ModelPlan> Read { get; }
}
