using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>Which modules are meant: by name, by regular expression (<c>re:</c>, which need match the beginning alone), or by class.</summary>
internal sealed class ModuleTargets
{
    private static readonly TimeSpan longest = TimeSpan.FromSeconds(1);

    private readonly HashSet<string> exact = [];
    private readonly List<Regex> patterns = [];

    /// <summary>Reads a list of targets; null is an empty one.</summary>
    /// <exception cref="EngineException">It is no list of texts, or an expression is malformed.</exception>
    public ModuleTargets(JsonNode? list, string file, string key)
    {
        if (list is null)
        {
            return;
        }
        if (list is not JsonArray array)
        {
            throw new EngineException($"expected a list of module names; found {list.ToJsonString()}", file, key);
        }
        foreach (JsonNode? item in array)
        {
            if (item is not JsonValue value || !value.TryGetValue(out string? target))
            {
                throw new EngineException($"expected a module name; found {item?.ToJsonString() ?? "null"}", file, key);
            }
            if (!target.StartsWith("re:", StringComparison.Ordinal))
            {
                exact.Add(target);
                continue;
            }
            try
            {
                patterns.Add(new Regex($@"\A(?:{target[3..]})", RegexOptions.CultureInvariant, longest));
            }
            catch (ArgumentException exception)
            {
                throw new EngineException($"'{target}' is not a regular expression: {exception.Message}", file, key, exception);
            }
        }
    }

    /// <summary>How well a module is matched: 3 by name, 2 by expression, 1 by class, 0 not at all.</summary>
    /// <exception cref="EngineException">An expression takes too long.</exception>
    public int Match(string module, string file)
    {
        if (exact.Contains(module))
        {
            return 3;
        }
        try
        {
            if (patterns.Exists(pattern => pattern.IsMatch(module)))
            {
                return 2;
            }
        }
        catch (RegexMatchTimeoutException exception)
        {
            throw new EngineException($"the expression {exception.Pattern} takes too long", file, "quantization_config", exception);
        }
        return exact.Contains(ClassOf(module)) ? 1 : 0;
    }

    /// <summary>Files name no classes: what looks tokens up is an embedding, and all else that has companions is linear.</summary>
    private static string ClassOf(string module) => module[(module.LastIndexOf('.') + 1)..] is "embed_tokens" or "wte" or "word_embeddings" ? "Embedding" : "Linear";
}
