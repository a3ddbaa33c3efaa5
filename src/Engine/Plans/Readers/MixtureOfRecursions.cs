using System.Collections.Immutable;
using System.Text.Json.Nodes;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>
/// Recursive transformers and Mixture-of-Recursions (Bae et al. 2025): llama whose layers are used several times, where a router may decide how often a
/// token goes through them. Checkpoints of the authors' code, in which <c>model.layers.N</c> is not the N-th layer that is run where tokens are routed.
/// </summary>
internal static class MixtureOfRecursions
{
    private const string Routed = "MoRLlamaForCausalLM", Plain = "LlamaForCausalLM";

    private static readonly GatedDecoderTraits Traits = new() { Family = "mor", Obeys = ["mor", "kv_sharing"] };

    public static ModelFamily Family { get; } = new(Read)
    {
        Name = Traits.Family,
        ModelTypes = [],
        Architectures = [Routed, Plain],
        Models = "Mixture-of-Recursions, recursive Llama and SmolLM",
        Supports = "llama with shared layers (cycle, sequence, middle_cycle, middle_sequence), expert-choice and token-choice depth routers, "
            + "recursion-wise or shared keys and values; settings in a section 'mor' of config.json or in the run's .yaml",
        Claims = IsOne,
    };

    /// <summary>A routed model by its class; a plain recursive one is a llama by name, and has settings.</summary>
    private static bool IsOne(Checkpoint checkpoint, string? modelType, string? architecture) =>
        architecture == Routed
        || (modelType is null or "llama" && architecture is null or Plain && RecursionSource.Find(checkpoint) is not null);

    private static ModelPlan Read(Checkpoint checkpoint)
    {
        var config = new ConfigReader(checkpoint.Config, checkpoint.Path);
        string? architecture = config.Node("architectures") is JsonArray { Count: 1 } names ? names[0]!.GetValue<string>() : null;
        bool mustRoute = architecture == Routed;
        RecursionSource source = RecursionSource.Find(checkpoint)
            ?? throw new EngineException($"a {Routed} does not say how it recurs; its settings belong in {RecursionSource.Places}", checkpoint.Path);
        RecursionSettings? settings = RecursionSettings.Read(source, config);
        if (architecture is not null && mustRoute != (settings?.Router is not null))
        {
            throw source.Router?.Error("enable", $"expected {(mustRoute ? "true" : "false")} in a {(mustRoute ? Routed : Plain)}")
                ?? new EngineException($"the settings of a {Routed} have no router; they belong in {RecursionSource.Places}", checkpoint.Path, "mor");
        }
        return settings is null ? GatedDecoder.Read(checkpoint, Traits with { Family = Llama.Family.Name }) : Read(checkpoint, settings);
    }

    private static ModelPlan Read(Checkpoint checkpoint, RecursionSettings settings)
    {
        var owners = new Dictionary<string, string>();
        var decoder = new GatedDecoder(checkpoint, Traits, tensor => OwnersName(tensor, owners, settings.SharesNorms));
        DepthRouterKind? routing = settings.Router is null ? null : DepthRouterReader.Kind(settings.Router);
        if (routing == DepthRouterKind.TokenChoice && settings.Sharing == LayerSharing.Cycle)
        {
            throw settings.Router!.Error(
                "type", "token choice under cycle sharing does not run in the reference code, so there are no such models; expected middle_cycle");
        }
        string[] names = [.. Enumerable.Range(0, settings.Layers).Select(layer => Name(layer, settings, routing, decoder.Prefix))];
        for (int layer = 0; layer < names.Length; layer++)
        {
            owners[names[layer]] = names[settings.Owner(layer)];
        }
        LayerMap layers = decoder.Layers(names);
        RequireEqualShapes(layers, settings, decoder.Config);
        if (settings.SharesKv)
        {
            layers = ShareKv(layers, settings);
        }
        if (settings is { Cycles: true, Recursions: > 1 })
        {
            layers = layers with
            {
                Recursion = new RecursionPlan
                {
                    FirstStep = settings.HasOuterLayers ? 1 : 0,
                    StepsPerDepth = settings.BaseDepth,
                    Depths = settings.Recursions,
                    Router = routing is null ? null : DepthRouterReader.Read(
                        settings.Router!, decoder.Tensors, decoder.Hidden, settings.Recursions, RouterPlaces(settings, routing.Value, decoder.Prefix)),
                },
            };
        }
        // The recursive class is never tied, whatever its configuration says, and the routed one is: the file tells.
        return decoder.Complete(
            layers, Vocabulary.StoredHead(decoder.Tensors, decoder.TokenTable, decoder.VocabularySize, decoder.Hidden));
    }

    /// <summary>What the names of a layer's tensors begin with; layer counts what is run.</summary>
    private static string Name(int layer, RecursionSettings settings, DepthRouterKind? routing, string prefix)
    {
        if (routing is null)
        {
            return $"{prefix}layers.{layer}";
        }
        int first = settings.HasOuterLayers ? 1 : 0;
        (int depth, int place) = Math.DivRem(layer - first, settings.BaseDepth);
        bool expert = routing == DepthRouterKind.ExpertChoice;
        if (settings.HasOuterLayers && layer == 0)
        {
            return $"{prefix}layers.0";
        }
        if (settings.HasOuterLayers && layer == settings.Layers - 1)
        {
            return $"{prefix}layers.{(expert ? settings.Recursions + 1 : 2)}";
        }
        return expert ? $"{prefix}layers.{first + depth}.block.{place}" : $"{prefix}layers.{first}.block_list.{depth}.{place}";
    }

    private static string[] RouterPlaces(RecursionSettings settings, DepthRouterKind routing, string prefix)
    {
        int first = settings.HasOuterLayers ? 1 : 0;
        return routing == DepthRouterKind.TokenChoice
            ? [$"{prefix}layers.{first}"]
            : [.. Enumerable.Range(first, settings.Recursions).Select(layer => $"{prefix}layers.{layer}")];
    }

    private static string? OwnersName(string tensor, Dictionary<string, string> owners, bool sharesNorms)
    {
        foreach (string part in (ReadOnlySpan<string>)[".self_attn.", ".mlp.", ".input_layernorm.", ".post_attention_layernorm."])
        {
            int at = tensor.IndexOf(part, StringComparison.Ordinal);
            if (at >= 0 && owners.TryGetValue(tensor[..at], out string? owner))
            {
                return sharesNorms || !part.Contains("norm", StringComparison.Ordinal) ? owner + tensor[at..] : null;
            }
        }
        return null;
    }

    /// <summary>A configuration may give each layer its own heads and width; layers that share must agree.</summary>
    private static void RequireEqualShapes(LayerMap layers, RecursionSettings settings, ConfigReader config)
    {
        for (int layer = 0; layer < settings.Layers; layer++)
        {
            BlockPlan block = layers.Blocks[layer], owner = layers.Blocks[settings.Owner(layer)];
            if (layers.KvSlots[layer] != layers.KvSlots[settings.Owner(layer)] || block.Attention!.Heads != owner.Attention!.Heads)
            {
                throw config.Error("num_attention_heads", $"layers {settings.Owner(layer)} and {layer} share their weights, but differ in heads");
            }
        }
    }

    /// <summary>
    /// One slot for each distinct layer, written where it is first used (<c>RecursiveDynamicCache</c>; Bae et al. 2025, section 2.2.2).
    /// </summary>
    private static LayerMap ShareKv(LayerMap layers, RecursionSettings settings)
    {
        var slots = ImmutableArray.CreateBuilder<KvSlotPlan>();
        var steps = ImmutableArray.CreateBuilder<LayerStep>(settings.Layers);
        var slotOf = new Dictionary<int, int>();
        for (int layer = 0; layer < settings.Layers; layer++)
        {
            int owner = settings.Owner(layer);
            if (owner == layer)
            {
                slotOf[layer] = slots.Count;
                slots.Add(layers.KvSlots[layer]);
            }
            steps.Add(layers.Steps[layer] with { KvSlot = slotOf[owner], WritesKv = owner == layer });
        }
        return layers with { Steps = steps.MoveToImmutable(), KvSlots = slots.ToImmutable() };
    }
}
