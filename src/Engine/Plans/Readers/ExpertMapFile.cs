using System.Collections.Immutable;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Safetensors;

namespace Engine.Plans.Readers;

/// <summary>
/// <c>expert_map.json</c>, a file beside a model whose experts were merged or dropped. It says for mixtures, by the name that their tensors begin with, which group
/// each of the router's experts belongs to: <c>{"model.layers.3.block_sparse_moe": [0, 0, 1, -1]}</c>. Those of one group have the weights that are stored for any
/// of them; −1 is an expert that was dropped: its logit counts as −∞ before the router does anything else. Mixtures that are not named are as they are
/// stored. (MC-SMoE, Li et al. 2024, saves the same labels as a pickle of tensors by module name.)
/// </summary>
internal sealed class ExpertMapFile
{
    private readonly string path;
    private readonly ConfigReader? map;
    private readonly HashSet<string> unread;

    private ExpertMapFile(string path, JsonObject? map)
    {
        this.path = path;
        this.map = map is null ? null : new ConfigReader(map, path);
        unread = [.. map?.Select(static pair => pair.Key) ?? []];
    }

    /// <summary>Reads the file; where there is none, no mixture is named.</summary>
    /// <exception cref="EngineException">It is no JSON object.</exception>
    public static ExpertMapFile Read(Checkpoint checkpoint)
    {
        string path = Path.Combine(checkpoint.Path, HfAssets.ExpertMapName);
        return new ExpertMapFile(path, checkpoint.ReadAsset(HfAssets.ExpertMapName) is { } json ? HfAssets.ParseObject(json, path) : null);
    }

    /// <summary>Refuses a file beside a model that has nothing it could speak of.</summary>
    /// <exception cref="EngineException">There is one.</exception>
    public static void RequireNone(Checkpoint checkpoint)
    {
        if (checkpoint.ReadAsset(HfAssets.ExpertMapName) is not null)
        {
            throw new EngineException("the model has no experts that could be mapped", Path.Combine(checkpoint.Path, HfAssets.ExpertMapName));
        }
    }

    /// <summary>The group of each expert, or −1; default where the file does not name the mixture.</summary>
    /// <param name="module">What the names of the mixture's tensors begin with.</param>
    /// <param name="experts">Experts that the router knows.</param>
    /// <exception cref="EngineException">There are more or fewer, one is no label, or all were dropped.</exception>
    public ImmutableArray<int> Labels(string module, int experts)
    {
        if (!unread.Remove(module))
        {
            return default;
        }
        JsonArray labels = map!.Node(module) as JsonArray ?? throw map.Error(module, $"expected an array; found {ConfigReader.Show(map.Node(module))}");
        if (labels.Count != experts)
        {
            throw map.Error(module, $"expected a label for each of the router's {experts} experts; found {labels.Count}");
        }
        ImmutableArray<int> groups = [.. labels.Select((label, expert) =>
            ConfigReader.ToNumber(label) is { } number && number >= -1 && number < experts && number == Math.Floor(number)
                ? (int)number
                : throw map.Error($"{module}[{expert}]", $"expected a whole number from -1 to {experts - 1}; found {ConfigReader.Show(label)}"))];
        return groups.All(static group => group < 0) ? throw map.Error(module, "all experts are dropped; at least one must be kept") : groups;
    }

    /// <summary>Complains about mixtures that the model does not have.</summary>
    /// <exception cref="EngineException">There is one.</exception>
    public void Complete()
    {
        if (unread.Count > 0)
        {
            throw new EngineException("the model has no mixture of experts of this name", path, unread.Order(StringComparer.Ordinal).First());
        }
    }
}
