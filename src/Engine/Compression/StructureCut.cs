using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Plans;
using Engine.Transforms.Pruning;

namespace Engine.Compression;

/// <summary>
/// Leaves out what a model would miss least: layers (Men et al. 2024, ShortGPT), experts that are sent little (Lu et al. 2024 call it expert dropping), inner neurons of
/// feed-forwards by ‖a‖ · ‖column of the last matrix‖, which is the energy of CAMERA-P's micro-experts. What is left is an ordinary model of its family,
/// with as many experts, heads and neurons in each layer. Experts can be merged instead (<see cref="ExpertMerge"/>); heads are <see cref="HeadCut"/>'s.
/// </summary>
internal sealed class StructureCut
{
    private const int WideUnit = 32, NarrowUnit = 4, WideFrom = 256;
    private static readonly string[] countKeys = ["num_experts", "num_local_experts", "n_routed_experts"];
    private static readonly string[] widthKeys = ["intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"];

    private readonly Checkpoint source;
    private readonly CompressionOptions options;
    private readonly StructureStatistics statistics;
    private readonly ModelPlan stored, plan;
    private readonly Dictionary<string, TensorCut> cuts;
    private readonly JsonObject config;

    private StructureCut(Checkpoint source, CompressionOptions options, StructureStatistics statistics)
    {
        this.source = source;
        this.options = options;
        this.statistics = statistics;
        stored = ModelPlanReader.ReadAsStored(source);
        plan = ModelPlanReader.Read(source);
        cuts = source.TensorNames.ToDictionary(static name => name, static name => new TensorCut(name, name));
        config = ConfigJson.Normalize(source.Config);
    }

    private int Layers => stored.Layers.Steps.Length;

    /// <summary>Refuses what cannot be cut, before the calibration text is run.</summary>
    /// <exception cref="EngineException">The model is no folder of plain layers, or has nothing of what is to go.</exception>
    public static void Require(Checkpoint source, ModelPlan plan, CompressionOptions options)
    {
        if (source is GgufVocabulary or Llama2cFile)
        {
            throw new EngineException("layers, heads, experts and neurons are cut out of Hugging Face folders alone", source.Path);
        }
        if (plan.Layers.Recursion is not null || plan.Streams is not null)
        {
            throw new EngineException("the model is recursive or has streams: what its layers share cannot be cut", source.Path);
        }
        if (plan.Layers.ChangesResidual)
        {
            throw new EngineException("the model's layers were rotated to fit each other: none can be taken out", source.Path);
        }
        int gone = options.DropLayers + options.ShareLayers;
        if (gone >= plan.Layers.Steps.Length)
        {
            throw new EngineException(
                $"expected fewer than the {plan.Layers.Steps.Length} layers, found {gone}", source.Path,
                options.DropLayers > 0 ? nameof(options.DropLayers) : nameof(options.ShareLayers));
        }
        if (options.DropHeads > 0)
        {
            HeadCut.Require(source, plan, options.DropHeads);
        }
        if (options.DropExperts + options.MergeExperts == 0)
        {
            return;
        }
        string asked = options.DropExperts > 0 ? nameof(options.DropExperts) : nameof(options.MergeExperts);
        ExpertsPlan[] mixtures = [.. plan.Experts()];
        if (mixtures.Length == 0)
        {
            throw new EngineException("the model has no experts", source.Path, asked);
        }
        foreach (ExpertsPlan experts in mixtures)
        {
            if (options.MergeExperts >= experts.Router.Experts)
            {
                throw new EngineException($"expected fewer than the {experts.Router.Experts} experts, found {options.MergeExperts}", source.Path, asked);
            }
            int most = experts.Router.Experts - experts.Router.PerToken;
            if (options.DropExperts > most || (options.DropExperts > 0 && experts.Router.Groups > 1))
            {
                throw new EngineException(
                    experts.Router.Groups > 1 ? "experts are in groups, which must stay of equal size" : $"expected at most {most}, found {options.DropExperts}",
                    source.Path, asked);
            }
        }
    }

    /// <summary>Cuts a model; what is returned owns it.</summary>
    /// <exception cref="EngineException">Its tensors or its configuration are of a form that cannot be cut.</exception>
    public static Checkpoint Apply(Checkpoint source, CompressionOptions options, StructureStatistics statistics)
    {
        StructureCut cut = new(source, options, statistics);
        if (options.DropExperts > 0)
        {
            cut.DropExperts();
        }
        if (options.MergeExperts > 0)
        {
            cut.MergeExperts();
        }
        if (options.Narrow > 0)
        {
            cut.Narrow();
        }
        if (options.DropHeads > 0)
        {
            cut.DropHeads();
        }
        int[] kept = [.. Enumerable.Range(0, cut.Layers).OrderBy(statistics.Similarity).Take(cut.Layers - options.DropLayers).Order()];
        if (options.DropLayers > 0)
        {
            LayerCut.Drop(source, cut.cuts, cut.config, kept);
        }
        if (options.ShareLayers > 0)
        {
            bool[] shares = new bool[kept.Length];
            foreach (int place in Enumerable.Range(1, kept.Length - 1).OrderByDescending(place => statistics.Similarity(kept[place])).Take(options.ShareLayers))
            {
                shares[place] = true;
            }
            LayerCut.Share(source, cut.cuts, LayerCut.Norms(cut.stored), shares);
        }
        var left = new CutCheckpoint(source, source.TensorNames.Where(cut.cuts.ContainsKey).Select(name => cut.cuts[name]), ConfigJson.Normalize(cut.config));
        cut.RequireSameLayers(ModelPlanReader.ReadAsStored(left), kept);
        return left;
    }

    private void DropHeads()
    {
        for (int step = 0; step < Layers; step++)
        {
            if (Block(stored, step).Attention is { } attention)
            {
                HeadCut.Drop(source, cuts, attention, statistics.HeadScores(Block(plan, step).Attention!), options.DropHeads);
            }
        }
        HeadCut.Describe(config, plan.Layers.Blocks.Select(static block => block.Attention).OfType<AttentionPlan>().First(), options.DropHeads);
    }

    private void DropExperts()
    {
        for (int step = 0; step < Layers; step++)
        {
            if (Block(stored, step).Experts is not { } experts)
            {
                continue;
            }
            ExpertsPlan merged = Block(plan, step).Experts!;
            int[] kept =
            [
                .. Enumerable.Range(0, experts.Router.Experts).OrderByDescending(expert => statistics.Chosen(step, merged.Map[expert]))
                    .Take(experts.Router.Experts - options.DropExperts).Order(),
            ];
            string router = experts.Router.Logits.Parts[0].Weight!.Tensor[..^CompressionJob.WeightSuffix.Length];
            string module = router[..(router.LastIndexOf('.') + 1)] + "experts.";
            foreach (string name in source.TensorNames)
            {
                if (name.StartsWith(router + '.', StringComparison.Ordinal))
                {
                    Keep(name, kept);
                }
                else if (name.StartsWith(module, StringComparison.Ordinal))
                {
                    string rest = name[module.Length..];
                    int dot = rest.IndexOf('.', StringComparison.Ordinal);
                    if (dot > 0 && int.TryParse(rest.AsSpan(0, dot), NumberStyles.None, CultureInfo.InvariantCulture, out int expert))
                    {
                        Renumber(name, module, Array.IndexOf(kept, expert), rest[dot..]);
                    }
                    else
                    {
                        Keep(name, kept);
                    }
                }
            }
        }
        foreach (string key in countKeys)
        {
            Change(key, count => count - options.DropExperts);
        }
    }

    private void MergeExperts()
    {
        for (int step = 0; step < Layers; step++)
        {
            if (Block(stored, step).Experts is not { } experts)
            {
                continue;
            }
            ExpertsPlan merged = Block(plan, step).Experts!;
            double[] use = [.. merged.Map.Select(slot => statistics.Chosen(step, slot))];
            int[] groups = ExpertMerge.Groups(
                use, (expert, other) => statistics.Alike(merged.Router, expert, other), experts.Router.Experts - options.MergeExperts);
            foreach (IGrouping<int, int> group in Enumerable.Range(0, groups.Length).GroupBy(expert => groups[expert]).Where(static group => group.Count() > 1))
            {
                FeedForwardPlan[] members = [.. group.OrderBy(expert => expert != group.Key).Select(expert => experts.Slots[experts.Map[expert]])];
                foreach (FeedForwardPlan member in members)
                {
                    RequireOwn(member);
                }
                foreach (TensorCut cut in ExpertMerge.Merge(source, members, [.. group.OrderBy(expert => expert != group.Key).Select(expert => use[expert])]))
                {
                    cuts[cut.Name] = cut;
                }
            }
        }
    }

    private void Renumber(string name, string module, int expert, string rest)
    {
        if (expert < 0)
        {
            cuts.Remove(name);
        }
        else
        {
            cuts[name] = cuts[name] with { Name = string.Create(CultureInfo.InvariantCulture, $"{module}{expert}{rest}") };
        }
    }

    private void Keep(string name, int[] kept) => cuts[name] =
        source[name].Shape.Length == 1 ? cuts[name] with { Innermost = kept } : cuts[name] with { Outermost = kept };

    private void Narrow()
    {
        for (int step = 0; step < Layers; step++)
        {
            foreach (FeedForwardPlan feedForward in StructureStatistics.FeedForwards(Block(stored, step)))
            {
                Narrow(feedForward, Watched(step, feedForward));
            }
        }
        foreach (string key in widthKeys)
        {
            Change(key, KeptOf);
        }
    }

    /// <summary>The feed-forward that was watched in place of one that is a copy of it.</summary>
    private FeedForwardPlan Watched(int step, FeedForwardPlan feedForward)
    {
        BlockPlan block = Block(plan, step), copy = Block(stored, step);
        if (block.FeedForward is { } dense)
        {
            return dense;
        }
        ExpertsPlan merged = block.Experts!, experts = copy.Experts!;
        int slot = experts.Slots.IndexOf(feedForward), expert = experts.Map.IndexOf(slot);
        return merged.Slots[expert >= 0 ? merged.Map[expert] : merged.Shared[experts.Shared.Index().First(shared => shared.Item.Slot == slot).Index].Slot];
    }

    private void Narrow(FeedForwardPlan feedForward, FeedForwardPlan watched)
    {
        RequireOwn(feedForward);
        LinearPart down = feedForward.Down.Parts[0];
        double[] scores = statistics.Norms(watched);
        float[] columns = source[down.Weight!.Tensor].ToFloats();
        double[] squares = new double[scores.Length];
        for (int i = 0; i < columns.Length; i++)
        {
            squares[i % squares.Length] += (double)columns[i] * columns[i];
        }
        int[] kept =
        [
            .. Enumerable.Range(0, scores.Length).OrderByDescending(neuron => scores[neuron] * Math.Sqrt(squares[neuron])).Take(KeptOf(scores.Length)).Order(),
        ];
        foreach (LinearPart part in feedForward.In.Parts)
        {
            cuts[part.Weight!.Tensor] = cuts[part.Weight!.Tensor] with { Outermost = kept };
            if (part.Bias is not null)
            {
                cuts[part.Bias.Tensor] = cuts[part.Bias.Tensor] with { Innermost = kept };
            }
        }
        cuts[down.Weight!.Tensor] = cuts[down.Weight!.Tensor] with { Innermost = kept };
    }

    private void RequireOwn(FeedForwardPlan feedForward) => RequireOwn(source, feedForward.In.Parts.Add(feedForward.Down.Parts[0]));

    /// <summary>Refuses linear maps that are not each a matrix [outputs, inputs] under a name of its own.</summary>
    /// <exception cref="EngineException">One is not.</exception>
    public static void RequireOwn(Checkpoint source, IEnumerable<LinearPart> parts)
    {
        LinearPart? odd = parts.FirstOrDefault(part =>
            !part.IsPlain || part.Weight is not { IsPlain: true, Transposed: false, FirstRow: 0 } weight || source[weight.Tensor].Shape.Length != 2);
        if (odd is not null)
        {
            throw new EngineException(
                "expected a matrix [outputs, inputs] of its own: neither neurons, heads nor experts can be taken out of this one", source.Path, odd.Weight?.Tensor ?? odd.LowRank?.A.Tensor);
        }
    }

    /// <summary>Neurons that are left of so many: whole units that kernels and blocks of formats like, and of several experts as many as of each.</summary>
    private int KeptOf(int width)
    {
        int several = Count("n_shared_experts") ?? 1, one = Count("moe_intermediate_size") ?? width;
        if (several > 1 && width == several * one)
        {
            return several * KeptOf(one);
        }
        int unit = width >= WideFrom ? WideUnit : NarrowUnit;
        return Math.Clamp((int)Math.Round(width * (1 - options.Narrow) / unit) * unit, Math.Min(unit, width), width);

        int? Count(string key) => source.Config[key] is { } node && node.GetValueKind() == JsonValueKind.Number ? (int)node.GetValue<double>() : null;
    }

    private void Change(string key, Func<int, int> change)
    {
        switch (config[key])
        {
            case JsonArray counts:
                config[key] = new JsonArray([.. counts.Select(count => (JsonNode)change(count!.GetValue<int>()))]);
                break;
            case JsonValue value when value.GetValueKind() == JsonValueKind.Number:
                config[key] = change(value.GetValue<int>());
                break;
        }
    }

    /// <summary>Configurations that say by number what a layer is would say it of another layer now.</summary>
    private void RequireSameLayers(ModelPlan left, int[] kept)
    {
        for (int step = 0; step < kept.Length; step++)
        {
            BlockPlan now = Block(left, step), before = Block(stored, kept[step]);
            if (now.Experts is null != before.Experts is null || now.Attention?.SlidingWindow != before.Attention?.SlidingWindow
                || now.Attention?.Rope?.Dimensions != before.Attention?.Rope?.Dimensions)
            {
                throw new EngineException(
                    $"layer {kept[step]} would become layer {step}, of which the configuration says something else: this model's layers cannot be dropped", source.Path);
            }
        }
    }

    private static BlockPlan Block(ModelPlan plan, int step) => plan.Layers.Blocks[plan.Layers.Steps[step].Block];
}
