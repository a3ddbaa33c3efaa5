using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Safetensors;

/// <summary>
/// A folder as Hugging Face's libraries write it: <c>config.json</c>, tokenizer files, and weights in <c>model.safetensors</c> or in shards
/// that
/// <c>model.safetensors.index.json</c> lists. Files and tensors that the index does not list are ignored.
/// </summary>
public sealed class HfFolder : Checkpoint
{
    /// <summary>The index of a sharded model.</summary>
    public const string IndexName = "model.safetensors.index.json";

    /// <summary>The weights of a model in one file.</summary>
    public const string WeightsName = "model.safetensors";

    private readonly List<SafetensorsFile> shards = [];
    private readonly OrderedDictionary<string, TensorView> tensors = [];
    private readonly HfAssets assets;

    private HfFolder(string path)
    {
        Path = path;
        assets = new HfAssets(path);
    }

    /// <inheritdoc/>
    public override string Path { get; }

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => tensors.Keys;

    /// <inheritdoc/>
    public override JsonObject Config => assets.Config;

    /// <summary>There is a <c>config.json</c>.</summary>
    internal bool HasConfig => assets.HasConfig;

    /// <summary>Opens a folder.</summary>
    /// <exception cref="EngineException">
    /// There are no weights, or the index or a shard is malformed or missing.
    /// </exception>
    public static HfFolder Open(string path)
    {
        var folder = new HfFolder(path);
        try
        {
            string index = System.IO.Path.Combine(path, IndexName), weights = System.IO.Path.Combine(path, WeightsName);
            if (File.Exists(index))
                folder.OpenShards(index);
            else if (File.Exists(weights))
                folder.AddAll(folder.OpenShard(WeightsName));
            else
                throw new EngineException($"the folder has neither {WeightsName} nor {IndexName}{folder.OtherWeights()}", path);
            return folder;
        }
        catch
        {
            folder.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor) => tensors.TryGetValue(name, out tensor);

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => assets.Read(fileName);

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => assets.Names;

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            shards.ForEach(static shard => shard.Dispose());
        base.Dispose(disposing);
    }

    /// <summary>PyTorch's pickles are programs, and are not read.</summary>
    private string OtherWeights() =>
        assets.Names.FirstOrDefault(static name => name.StartsWith("pytorch_model", StringComparison.Ordinal)
            && System.IO.Path.GetExtension(name) is ".bin" or ".pt" or ".pth") is { } pickle
            ? $"; {pickle} is a pickle, which is not read: save the model as safetensors"
            : "";

    private void OpenShards(string index)
    {
        JsonObject root = HfAssets.ParseObject(assets.Read(IndexName), index);
        if (root["weight_map"] is not JsonObject weightMap)
            throw new EngineException("expected an object from tensor names to file names", index, "weight_map");

        var opened = new Dictionary<string, SafetensorsFile>();
        foreach ((string tensor, JsonNode? value) in weightMap)
        {
            if (value is not JsonValue text || !text.TryGetValue(out string? fileName))
                throw new EngineException($"expected a file name, found {value?.ToJsonString() ?? "null"}", index, $"weight_map.{tensor}");
            FileNames.RequireBare(fileName, index, $"weight_map.{tensor}");
            if (!opened.TryGetValue(fileName, out SafetensorsFile? shard))
                opened.Add(fileName, shard = OpenShard(fileName));
            tensors.Add(tensor, shard.TryGetTensor(tensor, out TensorView? view)
                ? view
                : throw new EngineException($"{IndexName} says that the tensor is in this file, but it is not", shard.Path, tensor));
        }
        if (tensors.Count == 0)
            throw new EngineException("it lists no tensors", index, "weight_map");
    }

    private SafetensorsFile OpenShard(string fileName)
    {
        string path = System.IO.Path.Combine(Path, fileName);
        if (!File.Exists(path))
            throw new EngineException($"the file is missing; {IndexName} lists it", path);
        FileNames.RequireInside(Path, path);
        SafetensorsFile shard = SafetensorsFile.Open(path);
        shards.Add(shard);
        return shard;
    }

    private void AddAll(SafetensorsFile shard)
    {
        foreach (string name in shard.TensorNames)
            tensors.Add(name, shard[name]);
    }
}
