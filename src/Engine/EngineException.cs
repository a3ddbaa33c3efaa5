namespace Engine;

/// <summary>
/// The one exception for bad input: a malformed file, an unknown architecture, a tensor of the wrong shape, a prompt longer than the context.
/// Its message names the file, the item in it (tensor, key, field), what was expected and what was found.
/// </summary>
public sealed class EngineException : Exception
{
    /// <summary>Creates the exception from its parts; the message is composed of those that are present.</summary>
    /// <param name="reason">What is wrong, with what was expected and what was found.</param>
    /// <param name="file">The file it was found in, or null.</param>
    /// <param name="item">The tensor, key or field, or null.</param>
    /// <param name="inner">The cause, or null.</param>
    public EngineException(string reason, string? file = null, string? item = null, Exception? inner = null)
        : base(Compose(reason, file, item), inner)
    {
        Reason = reason;
        File = file;
        Item = item;
    }

    /// <summary>What is wrong, without the place.</summary>
    public string Reason { get; }

    /// <summary>The file the problem was found in, or null.</summary>
    public string? File { get; }

    /// <summary>The tensor, key or field the problem was found in, or null.</summary>
    public string? Item { get; }

    private static string Compose(string reason, string? file, string? item) => (file, item) switch
    {
        (null, null) => reason,
        (null, _) => $"{item}: {reason}",
        (_, null) => $"{file}: {reason}",
        _ => $"{file}: {item}: {reason}",
    };
}
