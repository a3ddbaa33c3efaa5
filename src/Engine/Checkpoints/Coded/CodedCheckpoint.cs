using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Coded;

/// <summary>
/// A checkpoint of quantized modules as everyone else knows them: <c>module.weight</c> is a matrix whatever it is stored as, and the tensors it is made of, and the
/// keys of the configuration that say how, are not seen. Weights stay as they are in the file (<see cref="TensorView.Coded"/>).
/// </summary>
internal sealed class CodedCheckpoint : Checkpoint
{
    /// <summary>Keys of <c>config.json</c> that say how weights are quantized.</summary>
    public static readonly string[] ConfigKeys = ["quantization_config", "compression_config"];

    /// <summary>The key that says which weights are stored without their zeros: within one of those, or by itself in files from before 2024-05.</summary>
    public const string SparsityKey = "sparsity_config";

    private readonly Checkpoint source;
    private readonly OrderedDictionary<string, CodedWeight?> tensors = [];

    /// <summary>Reads the modules of a checkpoint; owns it from here on, but not where this fails.</summary>
    /// <param name="source">The file's own tensors.</param>
    /// <param name="modules">How its modules are stored.</param>
    /// <exception cref="EngineException">Tensors are missing or do not fit the configuration or each other.</exception>
    public CodedCheckpoint(Checkpoint source, ICodedModules modules)
    {
        this.source = source;
        Config = (JsonObject)source.Config.DeepClone();
        foreach (string key in ConfigKeys)
        {
            Config.Remove(key);
        }
        Config.Remove(SparsityKey);
        var known = new HashSet<string>();
        foreach (string name in source.TensorNames)
        {
            (string moduleName, string suffix) = Split(name, modules.Companions);
            bool companion = modules.Companions.Contains(suffix);
            if (!companion && suffix != "weight")
            {
                tensors.Add(name, null);
                continue;
            }
            if (!known.Add(moduleName))
            {
                continue;
            }
            var module = new CodedModule(source, moduleName);
            if (modules.Read(module) is { } weight)
            {
                tensors.Add(module.WeightName, weight);
            }
            else if (module.Has("weight"))
            {
                tensors.Add(module.WeightName, null);
            }
        }
    }

    /// <inheritdoc/>
    public override string Path => source.Path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => tensors.Keys;

    /// <inheritdoc/>
    public override JsonObject Config { get; }

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, object> Metadata => source.Metadata;

    /// <inheritdoc/>
    public override IReadOnlyList<string> AssetNames => source.AssetNames;

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => source.ReadAsset(fileName);

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor)
    {
        tensor = null;
        if (!tensors.TryGetValue(name, out CodedWeight? weight))
        {
            return false;
        }
        if (weight is null)
        {
            return source.TryGetTensor(name, out tensor);
        }
        tensor = weight.View();
        return true;
    }

    /// <inheritdoc/>
    public override bool TryGetOutline(string name, [NotNullWhen(true)] out TensorView? outline)
    {
        outline = null;
        if (!tensors.TryGetValue(name, out CodedWeight? weight))
        {
            return false;
        }
        outline = weight?.Outline;
        return outline is not null || source.TryGetOutline(name, out outline);
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            source.Dispose();
        }
        base.Dispose(disposing);
    }

    /// <summary>A name as module and rest: the rest is a companion where one fits, else what is behind the last dot.</summary>
    private static (string Module, string Suffix) Split(string name, IReadOnlySet<string> companions)
    {
        for (int dot = name.IndexOf('.'); dot >= 0; dot = name.IndexOf('.', dot + 1))
        {
            if (companions.Contains(name[(dot + 1)..]))
            {
                return (name[..dot], name[(dot + 1)..]);
            }
        }
        int last = name.LastIndexOf('.');
        return last < 0 ? (name, "") : (name[..last], name[(last + 1)..]);
    }
}
