using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>
/// Where a recursive model says how it recurs. The saved config.json of Mixture-of-Recursions holds next to nothing of it (a <c>kv_sharing</c> section
/// at most); the rest is in the training run's Hydra file. So: a section <c>mor</c> in config.json, which holds that file's sections <c>recursive</c>,
/// <c>kv_sharing</c>, <c>relaxation</c> and <c>mor</c>; else a YAML file beside the weights that has a key <c>recursive</c>; else <c>kv_sharing</c> alone.
/// </summary>
/// <param name="Recursive">The section <c>recursive</c>.</param>
/// <param name="KvSharing">The sections <c>kv_sharing</c>: the run's, and the one that training leaves in config.json.</param>
/// <param name="Relaxation">The section <c>relaxation</c>, or null.</param>
/// <param name="Router">The section <c>mor</c> of the run, or null.</param>
internal sealed partial record RecursionSource(
    ConfigReader Recursive, IReadOnlyList<ConfigReader> KvSharing, ConfigReader? Relaxation, ConfigReader? Router)
{
    /// <summary>Where the settings are looked for, for messages.</summary>
    public const string Places = "a section 'mor' in config.json, or a .yaml file beside the weights that has a key 'recursive'";

    private const string Section = "mor", KvSharingKey = "kv_sharing";

    // Of the sections in config.json; a Hydra file has the whole training run beside them.
    private static readonly string[] KnownKeys = ["recursive", KvSharingKey, "relaxation", Section, "tensor_storage"];

    /// <summary>Finds the settings, or null where there are none.</summary>
    /// <exception cref="EngineException">They are malformed, or several files have them.</exception>
    public static RecursionSource? Find(Checkpoint checkpoint)
    {
        var config = new ConfigReader(checkpoint.Config, checkpoint.Path);
        if (config.Part(Section) is { } section)
        {
            KeyTable.Require(section, KnownKeys);
            return Of(config, section);
        }
        if (FindYaml(checkpoint) is var (name, root))
        {
            return Of(config, new ConfigReader(root, checkpoint.Path, $"{name}: "));
        }
        return config.Part(KvSharingKey) is { } sharing && sharing.Flag("enable", false)
            ? new RecursionSource(FromKvSharing(sharing), [sharing], null, null)
            : null;
    }

    private static RecursionSource Of(ConfigReader config, ConfigReader sections) => new(
        sections.Part("recursive") ?? throw sections.Error("recursive", "the section is missing"),
        [.. new[] { sections.Part(KvSharingKey), config.Part(KvSharingKey) }.OfType<ConfigReader>()],
        sections.Part("relaxation"),
        sections.Part(Section));

    /// <summary>Training copies the shape of the recursion into the section.</summary>
    private static ConfigReader FromKvSharing(ConfigReader sharing)
    {
        var recursive = new JsonObject();
        foreach (string key in (ReadOnlySpan<string>)["num_recursion", "sharing", "base_depth"])
        {
            recursive[key] = sharing.Node(key)?.DeepClone();
        }
        return new ConfigReader(recursive, sharing.File, $"{KvSharingKey}.");
    }

    private static (string Name, JsonObject Root)? FindYaml(Checkpoint checkpoint)
    {
        (string Name, JsonObject Root)? found = null;
        foreach (string name in checkpoint.AssetNames)
        {
            bool isYaml = name.EndsWith(".yaml", StringComparison.OrdinalIgnoreCase) || name.EndsWith(".yml", StringComparison.OrdinalIgnoreCase);
            // Models come with YAML of all kinds (merging recipes, training logs), which must not matter here even where it is malformed.
            if (!isYaml || checkpoint.ReadAsset(name) is not { } bytes || !RecursiveKey().IsMatch(System.Text.Encoding.Latin1.GetString(bytes)))
            {
                continue;
            }
            if (found is not null)
            {
                throw new EngineException($"both {found.Value.Name} and {name} have a key 'recursive'; keep the one of this model", checkpoint.Path, name);
            }
            found = (name, Yaml.ParseObject(bytes, checkpoint.Path, name));
        }
        return found;
    }

    [GeneratedRegex("""^["']?recursive["']?\s*:""", RegexOptions.Multiline | RegexOptions.CultureInvariant)]
    private static partial Regex RecursiveKey();
}
