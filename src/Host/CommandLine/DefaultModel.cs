using Engine;

namespace Host.CommandLine;

/// <summary>The small model that comes with the program, for when none is given.</summary>
internal static class DefaultModel
{
    private static string Path { get; } = System.IO.Path.Combine(AppContext.BaseDirectory, "default-model.gguf");

    /// <summary>The paths given, or the default model's.</summary>
    /// <exception cref="UsageException">A path given is empty.</exception>
    /// <exception cref="EngineException">None was given, and there is no default model beside the program.</exception>
    public static string[] Resolve(string[]? given) => given is null or [] ? [Resolve((string?)null)] : [.. given.Select(Resolve)];

    /// <summary>The path given, or the default model's.</summary>
    /// <exception cref="UsageException">The path given is empty.</exception>
    /// <exception cref="EngineException">None was given, and there is no default model beside the program.</exception>
    public static string Resolve(string? given)
    {
        if (given is "")
        {
            throw new UsageException("-m: expected a path, found an empty one");
        }
        if (given is not null)
        {
            return given;
        }
        return File.Exists(Path) ? Path : throw new EngineException("no model was given (-m PATH), and the default model is not there",
            Path);
    }
}
