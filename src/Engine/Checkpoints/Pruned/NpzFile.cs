using System.Buffers.Binary;
using System.Globalization;
using System.IO.Compression;
using System.Text;
using System.Text.RegularExpressions;

namespace Engine.Checkpoints.Pruned;

/// <summary>
/// Arrays of bytes in one dimension as <c>numpy.savez</c> and <c>savez_compressed</c> write them: a zip of .npy files (NumPy, <c>lib/format.py</c>). Headers are
/// read on opening; an array is unpacked when it is asked for, and never more of it than its header and the caller agree on.
/// </summary>
internal sealed partial class NpzFile : IDisposable
{
    private const string Suffix = ".npy";

    private const int PreambleBytes = 8, MostHeaderBytes = 4096;

    private static readonly byte[] magic = [0x93, .. "NUMPY"u8];

    private readonly FileStream stream;
    private readonly ZipArchive archive;
    private readonly OrderedDictionary<string, (ZipArchiveEntry Entry, int HeaderBytes, long Length)> arrays = [];
    private readonly Lock gate = new();

    private NpzFile(string path, FileStream stream)
    {
        Path = path;
        this.stream = stream;
        archive = new ZipArchive(stream, ZipArchiveMode.Read, leaveOpen: true);
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>Names of the arrays, in file order.</summary>
    public IReadOnlyCollection<string> Names => arrays.Keys;

    /// <summary>Opens a file and reads what arrays it has.</summary>
    /// <exception cref="EngineException">It is no such file, or an array is of another kind.</exception>
    public static NpzFile Open(string path)
    {
        FileStream? stream = null;
        try
        {
            stream = File.OpenRead(path);
            var file = new NpzFile(path, stream);
            file.ReadHeaders();
            return file;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or InvalidDataException or NotSupportedException)
        {
            stream?.Dispose();
            throw new EngineException($"the file cannot be read as .npz: {exception.Message}", path, inner: exception);
        }
        catch
        {
            stream?.Dispose();
            throw;
        }
    }

    /// <summary>Bytes of an array.</summary>
    public long Length(string name) => arrays[name].Length;

    /// <summary>Reads an array. Safe for concurrent use.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="bytes">Filled; of the array's length.</param>
    /// <exception cref="EngineException">There are more or fewer bytes than its header says, or they are damaged.</exception>
    public void Read(string name, Span<byte> bytes)
    {
        (ZipArchiveEntry entry, int header, long length) = arrays[name];
        ArgumentOutOfRangeException.ThrowIfNotEqual(bytes.Length, length);
        lock (gate)
        {
            try
            {
                using Stream content = entry.Open();
                content.ReadExactly(stackalloc byte[header]);
                content.ReadExactly(bytes);
                if (content.ReadByte() >= 0)
                {
                    throw new EngineException($"expected {length} bytes; found more", Path, name);
                }
            }
            catch (Exception exception) when (exception is IOException or InvalidDataException)
            {
                throw new EngineException($"its {length} bytes cannot be read: {exception.Message}", Path, name, exception);
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        archive.Dispose();
        stream.Dispose();
    }

    private void ReadHeaders()
    {
        foreach (ZipArchiveEntry entry in archive.Entries)
        {
            if (!entry.FullName.EndsWith(Suffix, StringComparison.Ordinal))
            {
                throw new EngineException("expected an array (.npy)", Path, entry.FullName);
            }
            string name = entry.FullName[..^Suffix.Length];
            (int header, long length) = ReadHeader(entry, name);
            if (!arrays.TryAdd(name, (entry, header, length)))
            {
                throw new EngineException("two arrays have this name", Path, name);
            }
        }
    }

    private (int HeaderBytes, long Length) ReadHeader(ZipArchiveEntry entry, string name)
    {
        using Stream content = entry.Open();
        Span<byte> preamble = stackalloc byte[PreambleBytes];
        if (content.ReadAtLeast(preamble, PreambleBytes, throwOnEndOfStream: false) < PreambleBytes || !preamble.StartsWith(magic))
        {
            throw new EngineException("it does not begin as a .npy file", Path, name);
        }
        int version = preamble[magic.Length], sizeBytes = version == 1 ? sizeof(ushort) : sizeof(uint);
        Span<byte> size = stackalloc byte[sizeBytes];
        content.ReadExactly(size);
        uint bytes = version == 1 ? BinaryPrimitives.ReadUInt16LittleEndian(size) : BinaryPrimitives.ReadUInt32LittleEndian(size);
        if (version is < 1 or > 3 || bytes > MostHeaderBytes)
        {
            throw new EngineException($"expected a .npy header of version 1 to 3 and at most {MostHeaderBytes} bytes; found version {version} and {bytes}", Path, name);
        }
        byte[] header = new byte[bytes];
        content.ReadExactly(header);
        string text = Encoding.Latin1.GetString(header);
        return Header().Match(text) is { Success: true } match
            && long.TryParse(match.Groups["length"].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out long length)
                ? (PreambleBytes + sizeBytes + (int)bytes, length)
                : throw new EngineException($"expected bytes (|u1) in one dimension; found {text.Trim()}", Path, name);
    }

    // NumPy writes keys in this order; a shape of one dimension ends with a comma.
    [GeneratedRegex(@"^\{'descr': '\|u1', 'fortran_order': (False|True), 'shape': \((?<length>[0-9]+),\), ?\}\s*$", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture)]
    private static partial Regex Header();
}
