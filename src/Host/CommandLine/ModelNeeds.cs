using System.Collections.Immutable;
using Engine;
using Engine.Plans;

namespace Host.CommandLine;

/// <summary>What options ask of a model. Looked at before its weights are loaded, so that nobody waits for a refusal.</summary>
internal static class ModelNeeds
{
    /// <summary>An expert-choice router: the only one that can choose in two ways.</summary>
    /// <exception cref="EngineException">The model has none.</exception>
    public static void ExpertChoice(ModelPlan plan, string path, string option)
    {
        if (plan.Layers.Recursion?.Router is not { Kind: DepthRouterKind.ExpertChoice })
        {
            throw new EngineException("the model has no expert-choice router", path, option);
        }
    }

    /// <summary>A router that gives tokens different depths.</summary>
    /// <exception cref="EngineException">The model has none.</exception>
    public static void DepthRouter(ModelPlan plan, string path, string option)
    {
        if (plan.Layers.Recursion is not { } recursion)
        {
            throw new EngineException("the model is not recursive: its tokens have no depths", path, option);
        }
        if (recursion.Router is null)
        {
            throw new EngineException($"the model has no router: every token goes through all {recursion.Depths} recursions", path, option);
        }
    }

    /// <summary>Mixtures of experts.</summary>
    /// <exception cref="EngineException">The model has none.</exception>
    public static void Experts(ModelPlan plan, string path, string option)
    {
        if (!plan.Experts().Any())
        {
            throw new EngineException("the model has no experts", path, option);
        }
    }

    /// <summary>A set of so many streams.</summary>
    /// <exception cref="EngineException">The model has none.</exception>
    public static void StreamSet(ModelPlan plan, string path, string option, int streams)
    {
        ImmutableArray<StreamSetPlan> sets = StreamSets(plan, path, option);
        if (!sets.Any(set => set.Count == streams))
        {
            string known = string.Join(", ", sets.Select(static set => set.Count));
            throw new EngineException($"expected {(sets.Length == 1 ? "" : "one of ")}{known}, found {streams}", path, option);
        }
    }

    /// <summary>A gate that weighs streams, in the set that is run.</summary>
    /// <param name="plan">The model.</param>
    /// <param name="path">Where it came from.</param>
    /// <param name="option">What asks for it.</param>
    /// <param name="streams">The set asked for, or null for the first.</param>
    /// <exception cref="EngineException">The model, or that set, has none.</exception>
    public static void StreamGate(ModelPlan plan, string path, string option, int? streams)
    {
        ImmutableArray<StreamSetPlan> sets = StreamSets(plan, path, option);
        if ((streams ?? sets[0].Count) == 1)
        {
            string choice = sets.Length == 1 ? "" : " (--streams chooses another)";
            throw new EngineException($"with one stream there is no gate and there are no weights{choice}", path, option);
        }
    }

    private static ImmutableArray<StreamSetPlan> StreamSets(ModelPlan plan, string path, string option) =>
        plan.Streams?.Sets ?? throw new EngineException("the model has no parallel streams", path, option);
}
