using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Safetensors;

namespace Engine.Checkpoints.Writing;

/// <summary>Writes any checkpoint as a GGUF file in a chosen format, with its tokenizer, so that llama.cpp and this engine read
/// it.</summary>
public static class GgufConverter
{
    private const uint QuantizationVersion = 2;

    /// <summary>What makes keys and values of a latent, which GGUF has apart.</summary>
    private const string LatentUp = "kv_b_proj.weight";

    /// <summary>Tensors of Hugging Face folders that hold no weights: old files saved buffers that readers compute.</summary>
    private static readonly string[] buffers = [".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"];

    /// <summary>Converts a checkpoint.</summary>
    /// <param name="source">
    /// A GGUF model (its metadata is kept and its tensors stored anew), or one in Hugging Face's vocabulary of a family in which GGUF's
    /// names are known: llama, mistral, mixtral, deci, qwen2, qwen3, qwen2_moe, qwen3_moe, olmoe, deepseek,
    /// deepseek_v2, deepseek_v3, phimoe, gpt_oss, gpt2.
    /// </param>
    /// <param name="path">The file; replaced if it exists.</param>
    /// <param name="recipe">What each tensor is stored as; experts that a folder has in MXFP4 (gpt-oss) stay what they are.</param>
    /// <param name="cancellationToken">Ends the conversion; nothing is left behind.</param>
    /// <exception cref="EngineException">The family, a tensor or the tokenizer cannot be expressed in GGUF, or a value is not
    /// finite.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static void Convert(Checkpoint source, string path, QuantizationRecipe recipe, CancellationToken cancellationToken = default)
    {
        Checkpoint raw = source is GgufVocabulary vocabulary ? vocabulary.Source : source;
        if (raw.Metadata.ContainsKey(GgufVocabulary.ArchitectureKey))
            Requantize(raw, path, recipe, cancellationToken);
        else
            Translate(raw, path, recipe, cancellationToken);
    }

    /// <summary>What <see cref="Convert"/> stores the matrices of a checkpoint as: for those who round weights themselves, which then are copied.</summary>
    /// <param name="source">The checkpoint.</param>
    /// <param name="recipe">The recipe.</param>
    /// <returns>The type of a matrix that is stored as [outputs, inputs], or several of them, by the name it has in <paramref name="source"/>.</returns>
    /// <exception cref="EngineException">The family cannot be expressed in GGUF; or, of the function, the tensor cannot, or there is none.</exception>
    public static Func<string, DType> Types(Checkpoint source, QuantizationRecipe recipe)
    {
        if (source is GgufVocabulary vocabulary)
        {
            Checkpoint raw = vocabulary.Source;
            (int stored, bool own) = Outline(raw);
            return name => recipe.For(vocabulary.RawName(name), source[name].Shape, stored, own);
        }
        HfConfig config = new(source);
        GgufArchitecture architecture = Architecture(source, config);
        config.Metadata(architecture); // refuses what GGUF has no place for, before any work
        bool tied = IsTied(source, config);
        return name =>
        {
            string? known = ToGguf(architecture, name);
            return recipe.For(ExpertStacks.StackOf(name, known) ?? known ?? throw Nameless(source, architecture, name), source[name].Shape, config.Layers, tied);
        };
    }

    private static void Requantize(Checkpoint source, string path, QuantizationRecipe recipe, CancellationToken cancellationToken)
    {
        (int layers, bool tied) = Outline(source);
        IEnumerable<KeyValuePair<string, object>> kept = source.Metadata.Where(static pair =>
            !pair.Key.StartsWith("split.", StringComparison.Ordinal)
            && pair.Key is not ("general.file_type" or "general.quantization_version"));
        GgufWriter.Write(path, kept.Concat(FileType(recipe)), [.. source.TensorNames.Select(name =>
        {
            TensorView tensor = source[name];
            return TensorSource.Convert(tensor, recipe.For(name, tensor.Shape, layers, tied));
        })], cancellationToken: cancellationToken);
    }

    /// <summary>What recipes want to know of a GGUF model: its layers, and whether it has no head of its own.</summary>
    private static (int Layers, bool Tied) Outline(Checkpoint source)
    {
        string architecture = source.Metadata.GetString(GgufVocabulary.ArchitectureKey, source.Path)!;
        return ((int)(source.Metadata.GetInteger($"{architecture}.block_count", source.Path) ?? 0), !source.TryGetTensor("output.weight", out _));
    }

    /// <summary>
    /// That of the family; a llama whose layers differ is a deci, in which alone llama.cpp lets them, but for windows, of which that knows nothing. (llama.cpp leaves out
    /// the attention of a layer without a feed-forward, which here is computed.)
    /// </summary>
    private static GgufArchitecture Architecture(Checkpoint source, HfConfig config) =>
        GgufArchitecture.All.FirstOrDefault(known => config.LayersDiffer && config.ModelType is "llama" or "mistral" && !config.HasWindow
            ? known.Name == GgufArchitecture.Deci
            : known.ModelTypes.Contains(config.ModelType))
        ?? throw new EngineException($"GGUF's names for the family {config.ModelType} are not known here", source.Path, "model_type");

    private static bool IsTied(Checkpoint source, HfConfig config) => config.Tied || !source.TryGetTensor("lm_head.weight", out _);

    /// <summary>GPT-2's own files leave out the prefix that everybody else's have.</summary>
    private static string? ToGguf(GgufArchitecture architecture, string name) => architecture.ToGguf(name) ?? architecture.ToGguf("transformer." + name);

    private static EngineException Nameless(Checkpoint source, GgufArchitecture architecture, string name) =>
        new($"GGUF has no name for this tensor in the architecture {architecture.Name}", source.Path, name);

    private static void Translate(Checkpoint source, string path, QuantizationRecipe recipe, CancellationToken cancellationToken)
    {
        if (source.ReadAsset(HfAssets.ExpertMapName) is not null)
        {
            throw new EngineException(
                "GGUF cannot say which experts are one and which were dropped", Path.Combine(source.Path, HfAssets.ExpertMapName));
        }
        var config = new HfConfig(source);
        GgufArchitecture architecture = Architecture(source, config);
        var tensors = new List<TensorSource>();
        var stacks = new ExpertStacks(source.Path, config.Experts ?? 0, config.Experts is null ? 0 : config.ExpertWidth);
        InterleavedStacks? interleaved = architecture.Name == GgufArchitecture.GptOss
            ? new InterleavedStacks(source.Path, config.Experts ?? 0, config.HiddenSize, config.ExpertWidth) : null;
        bool tied = IsTied(source, config);
        foreach (string name in source.TensorNames)
        {
            if (Array.Exists(buffers, name.EndsWith) || (tied && name == "lm_head.weight") || config.IsBehindLastLayer(name))
                continue;
            if (architecture.Name == GgufArchitecture.DeepSeek2 && name.EndsWith(LatentUp, StringComparison.Ordinal))
            {
                tensors.AddRange(SplitLatentUp(source[name], architecture, config, TypeOf));
                continue;
            }
            string? ggufName = ToGguf(architecture, name);
            if (interleaved?.TryAdd(name, source[name]) == true || stacks.TryAdd(name, ggufName, source[name]))
                continue;
            if (ggufName is null)
                throw Nameless(source, architecture, name);
            tensors.Add(Translate(source[name], ggufName, architecture, config, recipe, tied));
        }
        tensors.AddRange(stacks.Sources(TypeOf));
        tensors.AddRange(interleaved?.Sources(TypeOf) ?? []);
        foreach ((string name, float[] factors) in config.RopeFactors())
            tensors.Add(TensorSource.FromValues(name, [factors.Length], factors));
        GgufWriter.Write(
            path,
            [.. config.Metadata(architecture), .. FileType(recipe), .. TokenizerMetadata.From(source, config.VocabularySize)],
            tensors,
            cancellationToken: cancellationToken);

        DType TypeOf(string name, long[] shape) => recipe.For(name, shape, config.Layers, tied);
    }

    private static TensorSource Translate(
        TensorView tensor, string name, GgufArchitecture architecture, HfConfig config, QuantizationRecipe recipe, bool tied)
    {
        if (architecture.Pairing is null && config.Conv1dTransposed && tensor.Shape.Length == 2
            && name.StartsWith("blk.", StringComparison.Ordinal))
        {
            long[] shape = [tensor.Shape[1], tensor.Shape[0]];
            DType stored = recipe.For(name, shape, config.Layers, tied);
            return new TensorSource(name, stored, shape, stream => TensorSource.Convert(TransposedTensor.Columns(tensor), stored).WriteTo(stream));
        }
        if (tensor.Shape is [1, var columns] && name.EndsWith($".{GgufArchitecture.SharedGate}.weight", StringComparison.Ordinal))
            tensor = tensor with { Shape = [columns] };
        DType dtype = recipe.For(name, tensor.Shape, config.Layers, tied);
        bool permute = architecture.Permutes && !config.AdjacentPairs
            && (name.Contains(".attn_q.", StringComparison.Ordinal) || name.Contains(".attn_k.", StringComparison.Ordinal));
        if (!permute)
            return TensorSource.Convert(tensor, dtype, name);
        int headDim = config.HeadDim;
        if (tensor.Shape.Length == 1)
        {
            float[] values = tensor.ToFloats();
            float[] permuted = [.. Enumerable.Range(0, values.Length).Select(row => values[SourceRow(row, headDim)])];
            return TensorSource.FromValues(name, tensor.Shape, permuted);
        }
        return TensorSource.Convert(tensor, dtype, name, row => SourceRow(row, headDim));
    }

    /// <summary>
    /// From [heads × (keys + values), rank] to [heads, rank, keys], of each head transposed, and [heads, values, rank]: so that a query is multiplied by the
    /// one and a sum of latents by the other, both row by row.
    /// </summary>
    private static TensorSource[] SplitLatentUp(TensorView tensor, GgufArchitecture architecture, HfConfig config, Func<string, long[], DType> typeOf)
    {
        (int keys, int values) = config.LatentHead;
        int heads = config.Heads, rows = keys + values;
        if (tensor.Shape is not [var all, var rank] || all != (long)heads * rows)
        {
            throw new EngineException(
                $"expected {heads} heads of {keys} + {values} rows, found {tensor.DescribeShape()}", tensor.File(), tensor.Name);
        }
        return
        [
            Part("k_b_proj.weight", [heads, rank, keys], head => TransposedTensor.Columns(tensor.SliceRows(head * rows, keys))),
            Part("v_b_proj.weight", [heads, values, rank], head => tensor.SliceRows(head * rows + keys, values)),
        ];

        TensorSource Part(string ending, long[] shape, Func<long, TensorView> of)
        {
            string name = architecture.ToGguf(tensor.Name[..^LatentUp.Length] + ending)
                ?? throw new EngineException($"GGUF has no name for this tensor in the architecture {architecture.Name}", tensor.File(), tensor.Name);
            DType dtype = typeOf(name, shape);
            return new TensorSource(name, dtype, shape, stream =>
            {
                for (int head = 0; head < heads; head++)
                    TensorSource.Convert(of(head), dtype).WriteTo(stream);
            });
        }
    }

    /// <summary>
    /// The row of a Hugging Face projection (halves: j and j + headDim/2 rotate together) that becomes a row of GGUF's (2j and 2j + 1 do).
    /// </summary>
    private static long SourceRow(long row, int headDim)
    {
        long head = row / headDim, inHead = row % headDim;
        return head * headDim + inHead % 2 * (headDim / 2) + inHead / 2;
    }

    private static KeyValuePair<string, object>[] FileType(QuantizationRecipe recipe) =>
        [new("general.file_type", recipe.FileType), new("general.quantization_version", QuantizationVersion)];
}
