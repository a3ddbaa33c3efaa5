using System.Globalization;
using Engine.Checkpoints;
using Engine.Checkpoints.Safetensors;

namespace Engine.Plans.Readers;

/// <summary>
/// The JSON file that SliceGPT saves beside its weights (<c>slicegpt.model_adapter.SlicingConfig</c>): the hidden size before cutting, and the width of every sublayer's
/// input and output by layer.
/// </summary>
internal sealed class SlicingFile
{
    /// <summary>Width of the embedding, under 0.</summary>
    public const string Embedding = "embedding_dimensions";

    /// <summary>Widths by layer.</summary>
    public const string AttentionInput = "attention_input_dimensions", AttentionOutput = "attention_output_dimensions",
        FeedForwardInput = "mlp_input_dimensions", FeedForwardOutput = "mlp_output_dimensions";

    private const string Head = "head_dimension", SlicesHead = "do_slice_head", Parallel = "parallel_blocks";

    private static readonly string[] others =
        ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", HfFolder.IndexName];

    private readonly ConfigReader config;

    private SlicingFile(ConfigReader config) => this.config = config;

    /// <summary>The hidden size before cutting.</summary>
    public int HiddenSize => config.Count("hidden_size");

    /// <summary>The file in a model's folder, whatever its name; null where there is none.</summary>
    /// <exception cref="EngineException">There are several, one is malformed, or it asks for what is not computed.</exception>
    public static SlicingFile? Find(Checkpoint checkpoint)
    {
        ConfigReader? found = null;
        foreach (string name in checkpoint.AssetNames.Where(static name => name.EndsWith(".json", StringComparison.Ordinal) && !others.Contains(name)))
        {
            string path = Path.Combine(checkpoint.Path, name);
            var config = new ConfigReader(HfAssets.ParseObject(checkpoint.ReadAsset(name), path), path);
            if (!config.Has(Embedding))
            {
                continue;
            }
            if (found is not null)
            {
                throw new EngineException($"expected one file of slicing dimensions; found this and {found.File}", path);
            }
            found = config;
        }
        if (found?.Flag(Parallel, false) == true)
        {
            throw found.Error(Parallel, "attention and feed-forward side by side are not supported; found true");
        }
        return found is null ? null : new SlicingFile(found);
    }

    /// <summary>Refuses a width that is not what the file says, where it says one.</summary>
    /// <param name="key">Which.</param>
    /// <param name="layer">The layer.</param>
    /// <param name="width">As shapes say it.</param>
    public void Require(string key, int layer, int width)
    {
        string number = layer.ToString(CultureInfo.InvariantCulture);
        if (config.Part(key)?.CountOrNull(number) is { } said && said != width)
        {
            throw config.Error($"{key}.{number}", $"the tensors have a width of {width}; found {said}");
        }
    }

    /// <summary>Likewise of what the head reads, which is the whole hidden size where the head was not cut.</summary>
    public void RequireHead(int width)
    {
        int? said = config.CountOrNull(Head) ?? (config.FlagOrNull(SlicesHead) == false ? HiddenSize : null);
        if (said is { } expected && expected != width)
        {
            throw config.Error(Head, $"the tensors have a width of {width}; found {expected}");
        }
    }
}
