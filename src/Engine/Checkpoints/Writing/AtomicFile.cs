namespace Engine.Checkpoints.Writing;

/// <summary>Writes a file completely or not at all: into a temporary file beside it, which takes its name only when all bytes are on
/// disk.</summary>
internal static class AtomicFile
{
    private const int BufferBytes = 1 << 20;

    /// <summary>Writes a file.</summary>
    /// <exception cref="EngineException">The folder is missing, the disk is full, or the like.</exception>
    public static void Write(string path, Action<Stream> write)
    {
        string temporary = $"{path}.{Guid.NewGuid():N}.tmp";
        try
        {
            using (var stream = new FileStream(temporary, FileMode.CreateNew, FileAccess.Write, FileShare.None, BufferBytes))
            {
                write(stream);
                stream.Flush(flushToDisk: true);
            }
            File.Move(temporary, path, overwrite: true);
        }
        catch (Exception exception)
        {
            Delete(temporary);
            if (exception is IOException or UnauthorizedAccessException or NotSupportedException)
                throw new EngineException($"the file cannot be written: {exception.Message}", path, inner: exception);
            throw;
        }
    }

    private static void Delete(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // What made the writing fail is the news; that the remains could not be removed either is not.
        }
    }
}
