using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Safetensors;

/// <summary>The small files of a Hugging Face folder: its configuration and what a tokenizer needs.</summary>
internal sealed class HfAssets(string folder)
{
    public const string ConfigName = "config.json";

    /// <summary>Which experts are one and which were dropped; this engine's own.</summary>
    public const string ExpertMapName = "expert_map.json";

    // A tokenizer.json of a large vocabulary has tens of megabytes; nothing legitimate comes near this.
    private const long MaxAssetBytes = 512L << 20;

    private readonly Lazy<JsonObject> config = new(() =>
        ParseObject(Read(folder, ConfigName), System.IO.Path.Combine(folder, ConfigName)));

    /// <summary>The parsed <c>config.json</c>.</summary>
    /// <exception cref="EngineException">It is missing or is not a JSON object.</exception>
    public JsonObject Config => config.Value;

    /// <summary>There is a <c>config.json</c>.</summary>
    public bool HasConfig => File.Exists(System.IO.Path.Combine(folder, ConfigName));

    /// <summary>The files of the folder, in ordinal order.</summary>
    /// <exception cref="EngineException">The folder cannot be listed.</exception>
    public IReadOnlyList<string> Names
    {
        get
        {
            try
            {
                return [.. Directory.EnumerateFiles(folder).Select(static path => System.IO.Path.GetFileName(path)).Order(StringComparer.Ordinal)];
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                throw new EngineException($"the folder cannot be listed: {exception.Message}", folder, inner: exception);
            }
        }
    }

    public byte[]? Read(string fileName) => Read(folder, fileName);

    /// <summary>Reads a file of a folder, or returns null where there is none.</summary>
    /// <exception cref="EngineException">The name is not a bare file name, or the file cannot be read.</exception>
    public static byte[]? Read(string folder, string fileName)
    {
        FileNames.RequireBare(fileName, folder, "asset");
        string path = System.IO.Path.Combine(folder, fileName);
        try
        {
            var info = new FileInfo(path);
            if (!info.Exists)
                return null;
            if (info.Length > MaxAssetBytes)
                throw new EngineException($"the file has {info.Length} bytes, expected at most {MaxAssetBytes}", path);
            return File.ReadAllBytes(path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new EngineException($"the file cannot be read: {exception.Message}", path, inner: exception);
        }
    }

    /// <summary>Parses a JSON object strictly: no comments, no duplicate keys, nothing after it.</summary>
    /// <exception cref="EngineException">The bytes are absent or something else.</exception>
    public static JsonObject ParseObject(byte[]? json, string path)
    {
        if (json is null)
            throw new EngineException("the file is missing", path);
        try
        {
            JsonText.RequireUnicode(json);
            var options = new JsonDocumentOptions { AllowDuplicateProperties = false, MaxDepth = 64 };
            return JsonNode.Parse(json.AsSpan(), documentOptions: options) as JsonObject
                ?? throw new EngineException("expected a JSON object", path);
        }
        catch (JsonException exception)
        {
            throw new EngineException($"the file is not valid JSON: {exception.Message}", path, inner: exception);
        }
    }
}
