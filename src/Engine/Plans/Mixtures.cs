namespace Engine.Plans;

/// <summary>What can be asked of the mixtures of experts of a model.</summary>
public static class Mixtures
{
    /// <summary>The mixtures in the order in which they run; one that is run twice is there twice.</summary>
    public static IEnumerable<ExpertsPlan> Experts(this ModelPlan plan)
    {
        ArgumentNullException.ThrowIfNull(plan);
        return plan.Layers.Steps.Select(step => plan.Layers.Blocks[step.Block].Experts).OfType<ExpertsPlan>();
    }

    /// <summary>
    /// Experts that a token is sent to where so many are asked for at run time: a layer that has kept fewer takes those. The router's other rules stay as they are,
    /// its normalisation among them.
    /// </summary>
    /// <param name="experts">The mixture.</param>
    /// <param name="asked">Experts asked for; null for the plan's number.</param>
    public static int PerToken(this ExpertsPlan experts, int? asked)
    {
        ArgumentNullException.ThrowIfNull(experts);
        return Math.Min(asked ?? experts.Router.PerToken, experts.Kept);
    }

    /// <summary>Refuses a number of experts per token that the model cannot be run with.</summary>
    /// <param name="plan">The model.</param>
    /// <param name="perToken">Experts asked for.</param>
    /// <param name="path">Where the model came from.</param>
    /// <param name="item">What asks, for the message.</param>
    /// <exception cref="EngineException">The model has no experts, or fewer, or a router that chooses two by its nature.</exception>
    public static void RequirePerToken(ModelPlan plan, int perToken, string path, string item)
    {
        ExpertsPlan[] mixtures = [.. plan.Experts()];
        if (mixtures.Length == 0)
        {
            throw new EngineException("the model has no experts", path, item);
        }
        if (mixtures.FirstOrDefault(static mixture => mixture.Router.Choice == ExpertChoice.SparseMixer) is { } sparse)
        {
            throw new EngineException($"the model's router, SparseMixer-2, chooses {sparse.Router.PerToken} experts and no other number", path, item);
        }
        int most = mixtures.Max(static mixture => mixture.Kept);
        if (perToken < 1 || perToken > most)
        {
            throw new EngineException($"expected 1 to {most}, which is all experts of a layer, found {perToken}", path, item);
        }
    }

    /// <summary>
    /// With so many experts per token their weights sum to something else than in training: they are neither normalised nor a softmax over the chosen.
    /// </summary>
    public static bool ChangesSumOfWeights(ModelPlan plan, int perToken) => plan.Experts().Any(mixture =>
        mixture.PerToken(perToken) != mixture.Router.PerToken
        && mixture.Router is { Normalize: false, Weight: not ExpertWeight.SoftmaxOfChosen });
}
