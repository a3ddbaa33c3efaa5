namespace Engine.Checkpoints.Writing;

/// <summary>Writes a file completely or not at all: into a temporary file beside it, which takes its name only when all bytes are on
/// disk.</summary>
public static class AtomicFile
{
    private const int BufferBytes = 1 << 20;

    /// <summary>Writes a file.</summary>
    /// <param name="path">The file; replaced if it exists.</param>
    /// <param name="write">Writes its content.</param>
    /// <param name="cancellationToken">Looked at before each piece of the content; when cancelled nothing is left behind.</param>
    /// <exception cref="EngineException">The folder is missing, the disk is full, or the like.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static void Write(string path, Action<Stream> write, CancellationToken cancellationToken = default)
    {
        string temporary = $"{path}.{Guid.NewGuid():N}.tmp";
        try
        {
            using (var stream = new CancellableFile(temporary, cancellationToken))
            {
                write(stream);
                stream.Flush(flushToDisk: true);
            }
            File.Move(temporary, path, overwrite: true);
        }
        catch (Exception exception)
        {
            Delete(temporary);
            if (IsRefusal(exception))
                throw new EngineException($"the file cannot be written: {exception.Message}", path, inner: exception);
            throw;
        }
    }

    /// <summary>Finds out, before something that takes long, whether a file could be written; nothing is left behind.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="EngineException">It is a folder, or its folder is missing or cannot be written to.</exception>
    public static void Check(string path)
    {
        if (Directory.Exists(path))
        {
            throw new EngineException("the file cannot be written: there is a folder of that name", path);
        }
        string temporary = $"{path}.{Guid.NewGuid():N}.tmp";
        try
        {
            new FileStream(temporary, FileMode.CreateNew, FileAccess.Write).Dispose();
        }
        catch (Exception exception) when (IsRefusal(exception))
        {
            throw new EngineException($"the file cannot be written: {exception.Message}", path, inner: exception);
        }
        Delete(temporary);
    }

    /// <summary>Gives a complete file its name, on the same volume.</summary>
    /// <param name="from">The file.</param>
    /// <param name="path">Its name; what has it is replaced.</param>
    /// <exception cref="EngineException">It cannot have it.</exception>
    public static void Move(string from, string path)
    {
        try
        {
            File.Move(from, path, overwrite: true);
        }
        catch (Exception exception) when (IsRefusal(exception))
        {
            throw new EngineException($"the file cannot be written: {exception.Message}", path, inner: exception);
        }
    }

    /// <summary>Makes a folder, and those above it, where they are missing.</summary>
    /// <exception cref="EngineException">It cannot be made.</exception>
    public static void CreateFolder(string path)
    {
        try
        {
            Directory.CreateDirectory(path);
        }
        catch (Exception exception) when (IsRefusal(exception))
        {
            throw new EngineException($"the folder cannot be made: {exception.Message}", path, inner: exception);
        }
    }

    private static bool IsRefusal(Exception exception) =>
        exception is IOException or UnauthorizedAccessException or NotSupportedException;

    private sealed class CancellableFile(string path, CancellationToken cancellationToken)
        : FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, BufferBytes)
    {
        public override void Write(ReadOnlySpan<byte> buffer)
        {
            cancellationToken.ThrowIfCancellationRequested();
            base.Write(buffer);
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
