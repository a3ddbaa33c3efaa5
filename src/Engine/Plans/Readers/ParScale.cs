using System.Collections.Immutable;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Transforms;

namespace Engine.Plans.Readers;

/// <summary>
/// Parallel scaling (Chen et al. 2025, ParScale): Qwen2 that runs P copies of a sequence, each after a learned key and value prefix of its own per
/// layer, and mixes their final hidden states. Also checkpoints of <see cref="StreamSets"/>, where several P share one backbone.
/// </summary>
internal static class ParScale
{
    private static readonly GatedDecoderTraits Traits = new()
    {
        Family = "parscale",
        QkvBias = true,
        // The reference ignores use_sliding_window but for FlashAttention 2, where prefixes slide out of the window: its other results are the norm.
        SlidingWindows = static (config, layers) => SlidingWindows.LayerTypes(config, layers, null) ?? new int?[layers],
        Obeys = [StreamSets.CountKey],
    };

    public static ModelFamily Family { get; } = new(Read)
    {
        Name = Traits.Family,
        ModelTypes = ["qwen2_parscale"],
        Architectures = ["Qwen2ParScaleForCausalLM"],
        Models = "ParScale 0.7B–4.7B, ParScale-Qwen-3B, P = 1–8",
        Supports = "as qwen2, with full attention in all layers; P streams with prefixes and a gate; several P over one backbone",
    };

    private static ModelPlan Read(Checkpoint checkpoint)
    {
        var decoder = new GatedDecoder(checkpoint, Traits);
        LayerMap layers = decoder.Layers(decoder.PlainNames());
        StreamsPlan streams = new([.. Sections(decoder.Config).Select(section => ReadSet(section.Config, section.Prefix, decoder, layers))]);
        if (streams.Sets.Any(static set => set.Count > 1))
        {
            // Streams begin alike: before the first prefix is seen, their keys and values are the same.
            layers = layers with { KvSlots = layers.KvSlots.SetItem(0, layers.KvSlots[0] with { SharedByStreams = true }) };
        }
        return decoder.Complete(layers, decoder.UsualHead(), streams);
    }

    /// <summary>The settings of each set, and what its tensors' names begin with.</summary>
    private static IEnumerable<(ConfigReader Config, string Prefix)> Sections(ConfigReader config)
    {
        switch (config.Node(StreamSets.SetsKey))
        {
            case null:
                return [(config, "")];
            case JsonArray { Count: > 0 } sets:
                return sets.Select((set, i) => (
                    new ConfigReader(
                        set as JsonObject ?? throw config.Error($"{StreamSets.SetsKey}[{i}]", $"expected an object; found {ConfigReader.Show(set)}"),
                        config.File, $"{StreamSets.SetsKey}[{i}]."),
                    StreamSets.Prefix(i)));
            case { } other:
                throw config.Error(StreamSets.SetsKey, $"expected an array of objects; found {ConfigReader.Show(other)}");
        }
    }

    // Defaults as in configuration_qwen2_parscale.py.
    private static StreamSetPlan ReadSet(ConfigReader config, string prefix, GatedDecoder decoder, LayerMap layers)
    {
        int streams = config.CountOrNull(StreamSets.CountKey) ?? 1;
        if (streams == 1)
        {
            return new StreamSetPlan { Count = 1, PrefixTokens = 0, Prefixes = [], Gate = null };
        }
        int prefixTokens = config.CountOrNull(StreamSets.PrefixTokensKey) ?? 48;
        double smoothing = config.Number(StreamSets.SmoothingKey, 0.01);
        if (smoothing is < 0 or > 1)
        {
            throw config.Error(StreamSets.SmoothingKey, $"expected a number from 0 to 1; found {smoothing}");
        }
        int hidden = decoder.Hidden;
        if ((long)hidden * streams > ConfigReader.LargestCount)
        {
            throw config.Error(StreamSets.CountKey, $"{streams} streams are more than this engine can address");
        }
        TensorCatalog tensors = decoder.Tensors;
        string gate = $"{prefix}{decoder.Prefix}aggregate_layer";
        var prefixes = ImmutableArray.CreateBuilder<StreamPrefixPlan>(layers.Steps.Length);
        for (int layer = 0; layer < layers.Steps.Length; layer++)
        {
            prefixes.Add(new StreamPrefixPlan(PrefixOf(layer, "prefix_k"), PrefixOf(layer, "prefix_v")));
        }
        return new StreamSetPlan
        {
            Count = streams,
            PrefixTokens = prefixTokens,
            Prefixes = prefixes.MoveToImmutable(),
            Gate = new StreamGatePlan(
                new LinearPlan(hidden * streams, [tensors.Part($"{gate}.0", hidden, hidden * streams, biasRequired: true)]),
                new LinearPlan(hidden, [tensors.Part($"{gate}.2", streams, hidden, biasRequired: true)]),
                (float)smoothing),
        };

        WeightRef PrefixOf(int layer, string name) => tensors.Tensor(
            $"{prefix}{decoder.Prefix}layers.{layer}.self_attn.{name}", streams, layers.KvSlots[layer].KvHeads, prefixTokens,
            layers.KvSlots[layer].HeadDim);
    }
}
