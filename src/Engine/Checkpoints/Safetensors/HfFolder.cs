using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Safetensors;

/// <summary>
/// A folder as Hugging Face's libraries write it: <c>config.json</c>, tokenizer files, and weights in <c>model.safetensors</c> or in shards
/// that
/// <c>model.safetensors.index.json</c> lists. Files and tensors that the index does not list are ignored. Where there is neither, the only other index or
/// <c>.safetensors</c> file is taken: quantizing tools name theirs after what they did.
/// </summary>
public sealed class HfFolder : Checkpoint
{
    /// <summary>The index of a sharded model.</summary>
    public const string IndexName = "model.safetensors.index.json";

    /// <summary>The weights of a model in one file.</summary>
    public const string WeightsName = "model.safetensors";

    private const string WeightsEnding = ".safetensors", IndexEnding = ".safetensors.index.json";

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
            string name = folder.FindWeights();
            if (IsIndex(name))
                folder.OpenShards(name);
            else
                folder.AddAll(folder.OpenShard(name));
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

    /// <summary>A file of this name lists the shards of a model.</summary>
    internal static bool IsIndex(string name) => name.EndsWith(IndexEnding, StringComparison.Ordinal);

    /// <summary>The file at a path is all the weights of its folder, which has a configuration.</summary>
    internal static bool HoldsAll(string path)
    {
        string folder = System.IO.Path.GetDirectoryName(path) is { Length: > 0 } directory ? directory : ".";
        var assets = new HfAssets(folder);
        return assets.HasConfig && Candidates(assets.Names) is [var only] && only == System.IO.Path.GetFileName(path);
    }

    /// <summary>The index of the weights, or the file that has them all.</summary>
    private string FindWeights() => Candidates(assets.Names) switch
    {
        [var name] => name,
        [] => throw new EngineException($"the folder has neither {WeightsName} nor {IndexName}{OtherWeights()}", Path),
        var several => throw new EngineException(
            $"the folder has neither {WeightsName} nor {IndexName}, and several others: {string.Join(", ", several)}", Path),
    };

    /// <summary>Which files may be the weights: the usual one, else all indexes, else all files that are no adapter's.</summary>
    private static string[] Candidates(IReadOnlyList<string> names)
    {
        foreach (string usual in (ReadOnlySpan<string>)[IndexName, WeightsName])
        {
            if (names.Contains(usual))
                return [usual];
        }
        string[] indexes = [.. names.Where(IsIndex)];
        return indexes.Length > 0
            ? indexes
            : [.. names.Where(static name => name.EndsWith(WeightsEnding, StringComparison.Ordinal) && !name.StartsWith("adapter_", StringComparison.Ordinal))];
    }

    private string OtherWeights() =>
        assets.Names.FirstOrDefault(static name => Pickles.IsName(name) && name != "training_args.bin") is { } pickle ? $"; {Pickles.Reason(pickle)}" : "";

    private void OpenShards(string indexName)
    {
        string index = System.IO.Path.Combine(Path, indexName);
        JsonObject root = HfAssets.ParseObject(assets.Read(indexName), index);
        if (root["weight_map"] is not JsonObject weightMap)
            throw new EngineException("expected an object from tensor names to file names", index, "weight_map");

        var opened = new Dictionary<string, SafetensorsFile>();
        foreach ((string tensor, JsonNode? value) in weightMap)
        {
            if (value is not JsonValue text || !text.TryGetValue(out string? fileName))
                throw new EngineException($"expected a file name, found {value?.ToJsonString() ?? "null"}", index, $"weight_map.{tensor}");
            FileNames.RequireBare(fileName, index, $"weight_map.{tensor}");
            if (!opened.TryGetValue(fileName, out SafetensorsFile? shard))
                opened.Add(fileName, shard = OpenShard(fileName, indexName));
            tensors.Add(tensor, shard.TryGetTensor(tensor, out TensorView? view)
                ? view
                : throw new EngineException($"{indexName} says that the tensor is in this file, but it is not", shard.Path, tensor));
        }
        if (tensors.Count == 0)
            throw new EngineException("it lists no tensors", index, "weight_map");
    }

    private SafetensorsFile OpenShard(string fileName, string? index = null)
    {
        string path = System.IO.Path.Combine(Path, fileName);
        if (!File.Exists(path))
            throw new EngineException($"the file is missing{(index is null ? "" : $"; {index} lists it")}", path);
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
