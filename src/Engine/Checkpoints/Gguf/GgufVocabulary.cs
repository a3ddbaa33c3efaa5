using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Gguf;

/// <summary>
/// Presents a GGUF model in Hugging Face's vocabulary, the only one that plan readers know: tensors are renamed (<c>blk.0.attn_q.weight</c>
/// →
/// <c>model.layers.0.self_attn.q_proj.weight</c>) and <see cref="Config"/> is made from the metadata. The data stays where and as it is, so
/// a few things differ from what Hugging Face would have; extension keys of the configuration state them:
/// <list type="bullet">
/// <item><c>rope_pairing</c>: <c>"adjacent"</c> where the rows of q and k are in an order for pairs (2i, 2i + 1) (architectures llama, deepseek, deepseek2),
/// else <c>"halves"</c>.</item>
/// <item><c>rope_factors_tensor</c>: the name of a tensor of divisors for the rotary frequencies (Llama 3's scaling), where there is
/// one.</item>
/// <item><c>rope_short_factors_tensor</c>, <c>rope_long_factors_tensor</c>: likewise for LongRoPE.</item>
/// <item><c>conv1d_transposed</c>: <c>false</c> for gpt2, whose matrices GGUF stores as [outputs, inputs].</item>
/// </list>
/// A factor beside a matrix in NVFP4 is part of it (<see cref="FactoredMatrices"/>).
/// An architecture that is not known keeps its raw names, with <c>model_type</c> set to it, so that the reader that refuses it can say its
/// name.
/// </summary>
public sealed class GgufVocabulary : Checkpoint
{
    /// <summary>GGUF's name of Llama 3's frequency divisors; Hugging Face has no such tensor.</summary>
    internal const string RopeFactorsTensor = "rope_freqs.weight";

    /// <summary>GGUF's names of LongRoPE's divisors within the original context and beyond it.</summary>
    internal const string ShortFactorsTensor = "rope_factors_short.weight", LongFactorsTensor = "rope_factors_long.weight";

    internal const string ArchitectureKey = "general.architecture";

    private readonly OrderedDictionary<string, string> rawNames = [];
    private readonly Dictionary<string, string> names = [];
    private readonly Dictionary<string, TensorView> factored = [];
    private readonly Lazy<JsonObject> config;

    /// <summary>Wraps a GGUF checkpoint, which this object then owns.</summary>
    /// <exception cref="EngineException"><c>general.architecture</c> is not a string, two tensors get the same name, or a factor does not fit.</exception>
    public GgufVocabulary(Checkpoint source)
    {
        Source = source;
        string? name = source.Metadata.GetString(ArchitectureKey, source.Path);
        GgufArchitecture? architecture = GgufArchitecture.All.FirstOrDefault(known => known.Name == name);
        foreach (string rawName in source.TensorNames)
        {
            if (FactoredMatrices.Find(rawName, source) is var (weight, multiplies))
            {
                if (multiplies)
                    factored.Add(weight, FactoredMatrices.Read(source, weight, architecture?.ToHf(weight) ?? weight));
                continue;
            }
            string canonical = architecture?.ToHf(rawName) ?? rawName;
            if (!rawNames.TryAdd(canonical, rawName))
                throw new EngineException($"it is also called {canonical}, which the file has already", source.Path, rawName);
            names.Add(rawName, canonical);
        }
        config = new Lazy<JsonObject>(() => GgufConfig.Build(source, architecture, name));
    }

    /// <inheritdoc/>
    public override string Path => Source.Path;

    /// <summary>The model under its own names.</summary>
    public Checkpoint Source { get; }

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => rawNames.Keys;

    /// <inheritdoc/>
    /// <exception cref="EngineException">A key that the architecture needs is missing, or of the wrong type.</exception>
    public override JsonObject Config => config.Value;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, object> Metadata => Source.Metadata;

    /// <summary>Opens a GGUF file in Hugging Face's vocabulary.</summary>
    /// <exception cref="EngineException">The file is missing or malformed.</exception>
    public static GgufVocabulary Open(string path)
    {
        GgufFile file = GgufFile.Open(path);
        try
        {
            return new GgufVocabulary(file);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>The name that a tensor has in the file; the name itself where it is already that, or unknown.</summary>
    public string RawName(string name) => rawNames.GetValueOrDefault(name, name);

    /// <summary>Finds a tensor by its canonical name or by its name in the file.</summary>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor)
    {
        string canonical = names.GetValueOrDefault(name, name);
        if (factored.TryGetValue(RawName(canonical), out tensor))
            return true;
        if (!rawNames.TryGetValue(canonical, out string? rawName) || !Source.TryGetTensor(rawName, out tensor))
        {
            tensor = null;
            return false;
        }
        if (tensor.Name != canonical)
            tensor = tensor with { Name = canonical };
        if (tensor.Shape is [var columns] && rawName.EndsWith($".{GgufArchitecture.SharedGate}.weight", StringComparison.Ordinal))
            tensor = tensor with { Shape = [1, columns] };
        return true;
    }

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => Source.ReadAsset(fileName);

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => Source.AssetNames;

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            Source.Dispose();
        base.Dispose(disposing);
    }
}
