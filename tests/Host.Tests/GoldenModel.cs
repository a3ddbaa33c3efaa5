using System.Text.Json;
using System.Text.Json.Nodes;

namespace Host.Tests;

/// <summary>Tiny models with random weights in the repository, and what the authors' code computed for them. They have no tokenizers.</summary>
internal static class GoldenModel
{
    private static string Root { get; } = System.IO.Path.Combine(SharedFiles.RepositoryRoot, "tests", "Engine.Tests", "Golden");

    /// <summary>The folder of a model such as <c>mor/recursive_mc_rec2</c>.</summary>
    public static string Path(string name) => System.IO.Path.Combine(Root, name);

    /// <summary>An argument, which may be such a name.</summary>
    public static string Resolve(string argument) =>
        argument.Contains('/', StringComparison.Ordinal) && Directory.Exists(Path(argument)) ? Path(argument) : argument;

    /// <summary>A copy of a model that also has a tokenizer: token i is the byte i, for as many as the model has.</summary>
    public static string WithTokenizer(TemporaryFolder folder, string name, int vocabulary)
    {
        string copy = folder.File(System.IO.Path.GetFileName(name));
        Directory.CreateDirectory(copy);
        foreach (string file in new[] { "config.json", "model.safetensors" })
        {
            File.Copy(System.IO.Path.Combine(Path(name), file), System.IO.Path.Combine(copy, file));
        }
        File.WriteAllText(System.IO.Path.Combine(copy, "tokenizer.json"), ByteTokenizer(vocabulary));
        return copy;
    }

    /// <summary>A tokenizer.json in which token i is the byte i, for as many as there are.</summary>
    public static string ByteTokenizer(int vocabulary)
    {
        JsonObject ids = [];
        int unprintable = 256;
        for (int value = 0; value < vocabulary; value++)
        {
            // As GPT-2 spells bytes: what can be printed stands for itself.
            bool stands = value is (>= 33 and <= 126) or (>= 161 and <= 172) or (>= 174 and <= 255);
            ids[$"{(char)(stands ? value : unprintable++)}"] = value;
        }
        JsonObject bytes = new() { ["type"] = "ByteLevel", ["add_prefix_space"] = false, ["trim_offsets"] = true, ["use_regex"] = true };
        JsonObject tokenizer = new()
        {
            ["version"] = "1.0",
            ["added_tokens"] = new JsonArray(),
            ["pre_tokenizer"] = bytes,
            ["decoder"] = bytes.DeepClone(),
            ["model"] = new JsonObject { ["type"] = "BPE", ["vocab"] = ids, ["merges"] = new JsonArray() },
        };
        return tokenizer.ToJsonString();
    }

    /// <summary>What its code computed.</summary>
    public static JsonDocument Expected(string path) => JsonDocument.Parse(File.ReadAllBytes(System.IO.Path.Combine(path, "expected.json")));
}
