namespace Engine.Tests;

/// <summary>
/// Real models, tokenizers and texts live outside the repository, in a folder <c>shared</c> beside it (or where ENGINE_SHARED says).
/// A test that needs one skips where it is absent.
/// </summary>
public static class SharedFiles
{
    /// <summary>The repository's root.</summary>
    public static string RepositoryRoot { get; } = FindRoot();

    /// <summary>The folder, or null.</summary>
    public static string? Root { get; } = new[]
    {
        Environment.GetEnvironmentVariable("ENGINE_SHARED"),
        Path.Combine(Path.GetDirectoryName(RepositoryRoot)!, "shared"),
    }.FirstOrDefault(static candidate => Directory.Exists(candidate));

    /// <summary>The full path of a file or folder under it; skips the test where it is absent.</summary>
    public static string Require(string relative)
    {
        string? path = Root is null ? null : Path.Combine(Root, relative);
        Assert.SkipUnless(File.Exists(path) || Directory.Exists(path), $"needs {relative} in a folder 'shared' beside the repository");
        return path!;
    }

    private static string FindRoot()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Engine.sln")))
        {
            folder = folder.Parent;
        }
        return folder?.FullName ?? AppContext.BaseDirectory;
    }
}
