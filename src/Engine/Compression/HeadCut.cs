using System.Globalization;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Transforms.Pruning;

namespace Engine.Compression;

/// <summary>
/// Leaves attention heads out of a Hugging Face folder (Michel et al. 2019, "Are Sixteen Heads Really Better than One?"): whole groups of query heads with the key and value
/// head that they share, of every layer as many, so that what is left is an ordinary model of its family. Those go whose part of the output projection's result is smallest
/// over the calibration text.
/// </summary>
internal static class HeadCut
{
    private const string HeadsKey = "num_attention_heads", KvHeadsKey = "num_key_value_heads", HeadDimKey = "head_dim";

    /// <summary>Groups of heads of an attention: its key-value heads; of latent attention, whose heads share one key, its heads.</summary>
    public static int Groups(AttentionPlan attention) => attention.Latent is null ? attention.KvHeads : attention.Heads;

    /// <summary>Refuses attentions that heads cannot be taken out of.</summary>
    /// <exception cref="EngineException">There is none, layers differ in their heads, no group would go or stay, or heads are normalised together.</exception>
    public static void Require(Checkpoint source, ModelPlan plan, double dropped)
    {
        AttentionPlan[] attentions = [.. plan.Layers.Blocks.Select(static block => block.Attention).OfType<AttentionPlan>()];
        if (attentions.Length == 0 || attentions.DistinctBy(static attention => (attention.Heads, Groups(attention), attention.HeadDim)).Count() > 1)
        {
            throw Refusal(source, "heads are taken out of models whose layers all have as many of them, of one size");
        }
        int groups = Groups(attentions[0]), gone = Dropped(groups, dropped);
        if (gone < 1 || gone >= groups)
        {
            throw Refusal(source, string.Create(CultureInfo.InvariantCulture, $"expected at least 1 and fewer than the {groups} key-value heads, found {gone} ({dropped:R})"));
        }
        if (attentions.Any(static attention => attention.NormsWholeProjection))
        {
            throw Refusal(source, "heads are normalised all together: what is left of them would change");
        }
    }

    /// <summary>Cuts the heads of a layer.</summary>
    /// <param name="source">The model.</param>
    /// <param name="cuts">By name in the source; changed.</param>
    /// <param name="attention">The attention as it is stored.</param>
    /// <param name="scores">What each query head brings, [heads].</param>
    /// <param name="dropped">Groups to leave out, or a part of them below 1.</param>
    /// <exception cref="EngineException">A projection is no matrix of its own.</exception>
    public static void Drop(Checkpoint source, Dictionary<string, TensorCut> cuts, AttentionPlan attention, double[] scores, double dropped)
    {
        int groups = Groups(attention), queries = attention.Heads / groups;
        int[] kept =
        [
            .. Enumerable.Range(0, groups).OrderByDescending(group => scores.AsSpan(group * queries, queries).ToArray().Sum())
                .Take(groups - Dropped(groups, dropped)).Order(),
        ];
        int[] heads = Elements(kept, queries);
        LinearPart output = attention.Output.Parts[0];
        int valueDim = attention.Output.Inputs / attention.Heads;
        LinearPart[] projections = attention.Latent is { } latent ? [latent.Query.Parts[0]] : [.. attention.Qkv.Parts];
        StructureCut.RequireOwn(source, [.. projections, output]);
        if (attention.Latent is { KeyUp: { } up })
        {
            TakeRows(projections[0], Elements(heads, projections[0].Outputs / attention.Heads));
            string upProjection = up.Weight.Tensor;
            if (attention.Latent.ValueUp.Weight.Tensor != upProjection || source[upProjection].Shape.Length != 2)
            {
                throw new EngineException("expected keys and values of all heads in one matrix, kv_b_proj", source.Path, upProjection);
            }
            cuts[upProjection] = cuts[upProjection] with { Outermost = Elements(heads, up.RowsPerHead) };
        }
        else
        {
            TakeRows(projections[0], Elements(heads, attention.HeadDim));
            foreach (LinearPart shared in projections.AsSpan(1))
            {
                TakeRows(shared, Elements(kept, attention.HeadDim));
            }
        }
        cuts[output.Weight!.Tensor] = cuts[output.Weight!.Tensor] with { Innermost = Elements(heads, valueDim) };
        string module = output.Weight.Tensor[..(output.Weight.Tensor[..^CompressionJob.WeightSuffix.Length].LastIndexOf('.') + 1)];
        if (!attention.Sinks.IsEmpty)
        {
            cuts[module + "sinks"] = cuts[module + "sinks"] with { Innermost = heads };
        }

        void TakeRows(LinearPart part, int[] rows)
        {
            cuts[part.Weight!.Tensor] = cuts[part.Weight.Tensor] with { Outermost = rows };
            if (part.Bias is { } bias)
            {
                cuts[bias.Tensor] = cuts[bias.Tensor] with { Innermost = rows };
            }
        }
    }

    /// <summary>Says in a configuration what is left; the size of a head, which files leave out where it is hidden_size / heads, is said, too.</summary>
    public static void Describe(JsonObject config, AttentionPlan attention, double dropped)
    {
        int groups = Groups(attention), left = groups - Dropped(groups, dropped);
        config[HeadsKey] = attention.Heads / groups * left;
        config[KvHeadsKey] = left;
        if (attention.Latent is null)
        {
            config[HeadDimKey] = attention.HeadDim;
        }
    }

    /// <summary>Groups that go: a number, or a part below 1.</summary>
    private static int Dropped(int groups, double dropped) => (int)Math.Min(groups, dropped < 1 ? Math.Round(groups * dropped) : dropped);

    /// <summary>The elements of several units of equal size, in their order.</summary>
    private static int[] Elements(int[] units, int size) => [.. units.SelectMany(unit => Enumerable.Range(unit * size, size))];

    private static EngineException Refusal(Checkpoint source, string reason) => new(reason, source.Path, nameof(CompressionOptions.DropHeads));
}
