using System.Text.Json;

namespace Host.Tests;

/// <summary>Tiny models with random weights in the repository, and what the authors' code computed for them. They have no tokenizers.</summary>
internal static class GoldenModel
{
    private static string Root { get; } = System.IO.Path.Combine(SharedFiles.RepositoryRoot, "tests", "Engine.Tests", "Golden");

    /// <summary>The folder of a model such as <c>mor/recursive_mc_rec2</c>.</summary>
    public static string Path(string name) => System.IO.Path.Combine(Root, name);

    /// <summary>An argument, which may be such a name.</summary>
    public static string Resolve(string argument) => Directory.Exists(Path(argument)) && argument.Contains('/', StringComparison.Ordinal) ? Path(argument) : argument;

    /// <summary>What its code computed.</summary>
    public static JsonDocument Expected(string path) => JsonDocument.Parse(File.ReadAllBytes(System.IO.Path.Combine(path, "expected.json")));
}
