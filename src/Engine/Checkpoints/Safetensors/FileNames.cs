using System.Buffers;

namespace Engine.Checkpoints.Safetensors;

/// <summary>File names that come from inside files: an index must not make the engine read outside its folder.</summary>
internal static class FileNames
{
    private static readonly SearchValues<char> forbidden = SearchValues.Create("/\\:\0");

    /// <summary>Requires a bare file name.</summary>
    /// <exception cref="EngineException">The name is empty, a relative or absolute path, or a drive.</exception>
    public static void RequireBare(string name, string file, string item)
    {
        if (string.IsNullOrWhiteSpace(name) || name is "." or ".." || name.AsSpan().ContainsAny(forbidden))
            throw new EngineException($"\"{name}\" is not a bare file name; paths are refused", file, item);
    }

    /// <summary>
    /// Requires that a symbolic link stays inside its folder. The links of a Hugging Face cache (<c>snapshots/…/model.safetensors</c> to
    /// <c>../../blobs/…</c>) are allowed: that is how the hub's client stores every model.
    /// </summary>
    /// <exception cref="EngineException">The link leads elsewhere.</exception>
    public static void RequireInside(string folder, string path)
    {
        try
        {
            if (File.ResolveLinkTarget(path, returnFinalTarget: true) is not { } target)
                return;
            string home = Path.GetFullPath(folder);
            string blobs = Path.GetFullPath(Path.Combine(home, "..", "..", "blobs"));
            if (!IsUnder(home, target.FullName) && !IsUnder(blobs, target.FullName))
                throw new EngineException($"the symbolic link leads out of its folder, to {target.FullName}", path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new EngineException($"the symbolic link cannot be followed: {exception.Message}", path, inner: exception);
        }
    }

    private static bool IsUnder(string folder, string path) =>
        path.StartsWith(folder + Path.DirectorySeparatorChar, StringComparison.Ordinal);
}
