using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;

namespace Engine.Transforms.Pruning;

/// <summary>
/// A checkpoint whose feed-forwards have lost the neurons that contribute nothing. CAMERA-P (Xu et al. 2025) prunes "micro-experts", row i of gate and up with
/// column i of down, by writing zeros where they are, so that files and shapes stay as they were: here each expert has its own width, and what is not stored is
/// neither packed, nor read, nor multiplied. The order of those that are left stays, and zeros change no sum: a model in floats gives the same logits.
/// <para>
/// What is removed: a neuron whose column of down is zero; and where gate and up have no biases and the activation multiplies act(gate) with up, act(0) being 0
/// (all families but gpt-oss), also one whose row of gate or up is zero. Only in F32, F16 and BF16, before anything is quantized: blocks of down span
/// neurons. An expert may lose all of them; it keeps its part of the router's weights. One that adds a bias to its outputs,
/// and the feed-forward of a layer without experts, keep one.
/// </para>
/// <para>
/// What is looked at: pruning cuts all experts of a layer together, so of each layer four rows of down of four experts are read; if no column is zero in all of
/// those of one expert, the layer was not pruned. Otherwise all of its experts are read.
/// </para>
/// </summary>
public sealed class CompactedCheckpoint : Checkpoint
{
    private const string WidthKey = "intermediate_size", LayersKey = "num_hidden_layers";

    private readonly Checkpoint source;
    private readonly TensorsOnDemand made;
    private readonly OrderedDictionary<string, Compacted> tensors = [];
    private readonly HashSet<string> split = [];
    private readonly JsonObject? config;

    private CompactedCheckpoint(Checkpoint source, List<(StoredFeedForward FeedForward, int[] Kept, int Width)> narrowed, IReadOnlyList<StoredFeedForward> all)
    {
        this.source = source;
        made = new TensorsOnDemand(source.Path);
        split = [.. narrowed.SelectMany(static item => item.FeedForward.Stack)];
        // Experts of one tensor have different widths now, and are tensors of their own, also those that have lost nothing.
        foreach (StoredFeedForward whole in all.Where(feedForward => feedForward.Stack.Any(split.Contains)))
        {
            foreach (TensorView tensor in ((TensorView?[])[whole.Gate, whole.Up, whole.Down, .. whole.Biases]).OfType<TensorView>())
            {
                tensors[tensor.Name] = new Compacted(tensor, null);
            }
        }
        foreach ((StoredFeedForward feedForward, int[] kept, int width) in narrowed)
        {
            foreach (TensorView rows in (TensorView[])[feedForward.Gate, feedForward.Up])
            {
                Replace(rows, [width, rows.Columns], buffer => NeuronCopies.Rows(rows, kept, buffer));
            }
            foreach (TensorView bias in feedForward.Biases.Take(2).OfType<TensorView>())
            {
                Replace(bias, [width], buffer => NeuronCopies.Columns(bias, kept, width, buffer));
            }
            Replace(feedForward.Down, [feedForward.Down.Rows, width], buffer => NeuronCopies.Columns(feedForward.Down, kept, width, buffer));
            RemovedNeurons += feedForward.Width - width;
        }
        config = WithWidths(source.Config, [.. narrowed.Select(static item => (item.FeedForward.DenseLayer, item.Width))]);
        TensorNames = [.. source.TensorNames.Where(name => !split.Contains(name)), .. tensors.Keys.Where(name => !source.TryGetOutline(name, out _))];

        void Replace(TensorView tensor, long[] shape, Action<UnmanagedBuffer> fill) =>
            tensors[tensor.Name] = new Compacted(TensorView.Outline(tensor.Name, tensor.DType, shape), fill);
    }

    /// <summary>Neurons that are not there any more, over all feed-forwards.</summary>
    public long RemovedNeurons { get; }

    /// <inheritdoc/>
    public override string Path => source.Path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames { get; }

    /// <inheritdoc/>
    public override JsonObject Config => config ?? source.Config;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, object> Metadata => source.Metadata;

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => source.AssetNames;

    /// <summary>Removes what contributes nothing.</summary>
    /// <param name="source">The model, in Hugging Face's vocabulary; owned by what is returned from here on, but not where this fails.</param>
    /// <param name="recipe">
    /// How it is going to be quantized, or null: widths then stay multiples of its blocks, or of 32 where they were none of those before, and zeros fill what
    /// is missing; where that saves nothing, a feed-forward stays as it is.
    /// </param>
    /// <returns>A decorator, or the checkpoint itself where nothing can be removed.</returns>
    /// <exception cref="EngineException">There is no configuration.</exception>
    public static Checkpoint Apply(Checkpoint source, QuantizationRecipe? recipe = null)
    {
        ArgumentNullException.ThrowIfNull(source);
        StoredFeedForward[] all = [.. StoredFeedForward.Find(source)];
        StoredFeedForward[] pruned = [.. all.GroupBy(static feedForward => feedForward.Group).Select(static group => group.ToArray())
            .Where(static group => ZeroNeurons.Spread(group.Length).Any(i => ZeroNeurons.Suspects(group[i]))).SelectMany(static group => group)];
        if (pruned.Length == 0)
        {
            return source;
        }
        bool vanishes = !Shows(source.Config["model_type"], "gpt_oss") && !Shows(source.Config["architectures"], "GptOss");
        int denseLayers = DenseLayers(source);
        var narrowed = new List<(StoredFeedForward FeedForward, int[] Kept, int Width)>();
        foreach (StoredFeedForward feedForward in pruned.Where(feedForward => feedForward.DenseLayer is not { } layer || layer < denseLayers))
        {
            bool[] zero = ZeroNeurons.Find(feedForward, vanishes && feedForward.Biases[0] is null && feedForward.Biases[1] is null);
            int[] kept = [.. Enumerable.Range(0, zero.Length).Where(i => !zero[i])];
            int width = Padded(kept.Length, zero.Length, recipe?.BlockElements ?? 1, least: NeedsNeuron(feedForward, source) ? 1 : 0);
            if (width < zero.Length)
            {
                narrowed.Add((feedForward, kept, width));
            }
        }
        return narrowed.Count == 0 ? source : new CompactedCheckpoint(source, narrowed, all);
    }

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => source.ReadAsset(fileName);

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor)
    {
        if (!TryGetOutline(name, out tensor))
            return false;
        if (tensors.TryGetValue(name, out Compacted? compacted) && compacted.Fill is { } fill)
            tensor = made.Get(name, tensor.DType, tensor.Shape, fill);
        else
            return compacted is not null || source.TryGetTensor(name, out tensor);
        return true;
    }

    /// <inheritdoc/>
    public override bool TryGetOutline(string name, [NotNullWhen(true)] out TensorView? outline)
    {
        if (tensors.TryGetValue(name, out Compacted? compacted))
        {
            outline = compacted.Outline;
            return true;
        }
        outline = null;
        return !split.Contains(name) && source.TryGetOutline(name, out outline);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            source.Dispose();
        base.Dispose(disposing);
    }

    /// <summary>It outputs a bias, or plans have no place for nothing.</summary>
    private static bool NeedsNeuron(StoredFeedForward feedForward, Checkpoint checkpoint) =>
        feedForward.DenseLayer is not null || feedForward.Biases[2] is not null || checkpoint.TryGetTensor($"{feedForward.Group}.bias", out _);

    /// <summary>The width of so many neurons in whole blocks, if it was in whole blocks before; of the smaller ones that recipes fall back to, if it was in those.</summary>
    private static int Padded(int kept, int width, int block, int least)
    {
        const int SmallBlock = 32;
        int unit = width % block == 0 ? block : width % SmallBlock == 0 ? SmallBlock : 1;
        return (int)Math.Min(width, (Math.Max(kept, least) + unit - 1L) / unit * unit);
    }

    /// <summary>Layers whose width can be told one by one: where the configuration has one for all of them. Each has tensors of its own.</summary>
    private static int DenseLayers(Checkpoint checkpoint) =>
        checkpoint.Config[WidthKey]?.GetValueKind() == JsonValueKind.Number && checkpoint.Config["mor"] is null
        && int.TryParse(checkpoint.Config[LayersKey]?.ToJsonString(), NumberStyles.None, CultureInfo.InvariantCulture, out int layers)
        && layers <= checkpoint.TensorNames.Count ? layers : 0;

    private static bool Shows(JsonNode? node, string text) => node?.ToJsonString().Contains(text, StringComparison.Ordinal) == true;

    /// <summary>The configuration with a width per layer; null where no layer's own feed-forward has changed.</summary>
    private static JsonObject? WithWidths(JsonObject config, IReadOnlyList<(int? DenseLayer, int Width)> narrowed)
    {
        if (narrowed.All(static item => item.DenseLayer is null))
        {
            return null;
        }
        var changed = (JsonObject)config.DeepClone();
        var widths = new JsonNode[int.Parse(config[LayersKey]!.ToJsonString(), NumberStyles.None, CultureInfo.InvariantCulture)];
        for (int layer = 0; layer < widths.Length; layer++)
        {
            widths[layer] = config[WidthKey]!.DeepClone();
        }
        foreach ((int? layer, int width) in narrowed.Where(static item => item.DenseLayer is not null))
        {
            widths[layer!.Value] = width;
        }
        changed[WidthKey] = new JsonArray(widths);
        return ConfigJson.Normalize(changed);
    }

    /// <summary>A tensor of this checkpoint that is not one of the source.</summary>
    /// <param name="Outline">What it is; the tensor itself where nothing is to be made.</param>
    /// <param name="Fill">Makes it.</param>
    private sealed record Compacted(TensorView Outline, Action<UnmanagedBuffer>? Fill);
}
