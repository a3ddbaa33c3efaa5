using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Transforms.Pruning;

namespace Engine.Compression;

/// <summary>Leaves layers out of a Hugging Face folder, or has them share their weights; layers are known by the number in the names of their tensors.</summary>
internal static partial class LayerCut
{
    private const string LayersKey = "num_hidden_layers";

    /// <summary>Takes out all layers but some and numbers those anew.</summary>
    /// <param name="source">The model.</param>
    /// <param name="cuts">By name in the source; changed.</param>
    /// <param name="config">Its configuration; changed.</param>
    /// <param name="kept">The layers that are left, in order.</param>
    /// <exception cref="EngineException">The family counts its layers under another key.</exception>
    public static void Drop(Checkpoint source, Dictionary<string, TensorCut> cuts, JsonObject config, int[] kept)
    {
        if (config[LayersKey] is not JsonValue count)
        {
            throw new EngineException("layers are counted under another name than is known here", source.Path, LayersKey);
        }
        foreach ((string name, TensorCut cut) in cuts.ToArray())
        {
            if (NumberOf(name) is not { } layer)
            {
                continue;
            }
            int place = Array.IndexOf(kept, layer);
            if (place < 0)
            {
                cuts.Remove(name);
            }
            else
            {
                cuts[name] = cut with { Name = WithNumber(cut.Name, place) };
            }
        }
        int layers = count.GetValue<int>();
        config[LayersKey] = kept.Length;
        foreach ((string key, JsonNode? value) in config.ToArray())
        {
            if (value is JsonArray perLayer && perLayer.Count == layers)
            {
                config[key] = new JsonArray([.. kept.Select(layer => perLayer[layer]?.DeepClone())]);
            }
        }
    }

    /// <summary>
    /// Gives layers the weights of the last one before them that does not share, as FoldGPT does (Liu et al. 2024): norms before sublayers stay their own. The file holds
    /// copies, and this engine loads them once.
    /// </summary>
    /// <param name="source">The model.</param>
    /// <param name="cuts">By name in the source; changed.</param>
    /// <param name="norms">Names, in the source, of the norms before sublayers.</param>
    /// <param name="shares">Which layers share, [layers]; not the first.</param>
    /// <exception cref="EngineException">Layers that should share are of different shapes.</exception>
    public static void Share(Checkpoint source, Dictionary<string, TensorCut> cuts, HashSet<string> norms, bool[] shares)
    {
        Dictionary<string, TensorCut> byName = cuts.Values.ToDictionary(static cut => cut.Name);
        foreach ((string name, TensorCut own) in cuts.ToArray())
        {
            if (norms.Contains(name) || NumberOf(own.Name) is not { } layer || !shares[layer])
            {
                continue;
            }
            int leader = Array.LastIndexOf(shares, false, layer);
            if (!byName.TryGetValue(WithNumber(own.Name, leader), out TensorCut? shared)
                || !source[shared.From].Shape.AsSpan().SequenceEqual(source[own.From].Shape))
            {
                throw new EngineException($"layers {leader} and {layer} are of different shapes and cannot share weights", source.Path, name);
            }
            cuts[name] = shared with { Name = own.Name };
        }
    }

    /// <summary>The norms before the sublayers of a plan.</summary>
    public static HashSet<string> Norms(ModelPlan plan) =>
    [
        .. plan.Layers.Steps.SelectMany(static step => (NormPlan?[])[step.AttentionNorm, step.FeedForwardNorm])
            .SelectMany(static norm => (string?[])[norm?.Weight?.Tensor, norm?.Bias?.Tensor]).OfType<string>(),
    ];

    private static int? NumberOf(string name) =>
        LayerNumber().Match(name) is { Success: true } match ? int.Parse(match.ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture) : null;

    private static string WithNumber(string name, int number)
    {
        Match match = LayerNumber().Match(name);
        return string.Create(CultureInfo.InvariantCulture, $"{name.AsSpan(0, match.Index)}{number}{name.AsSpan(match.Index + match.Length)}");
    }

    [GeneratedRegex(@"(?<=(^|\.)layers\.)[0-9]{1,9}(?=\.)", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture)]
    private static partial Regex LayerNumber();
}
