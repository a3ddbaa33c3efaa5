using System.Globalization;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Safetensors;
using Engine.Checkpoints.Writing;
using Engine.Transforms.Quantization;

namespace Engine.Compression;

/// <summary>
/// The folder in which finished layers wait for the others, so that what was interrupted goes on where it was: a file for each layer, and one that says what the
/// work is. Matrices are stored under <see cref="MatrixPlace"/>: dense as they will be, blocks of GGUF as rows of bytes, integers as codes, scales and zeros of one byte, type
/// and byte.
/// </summary>
internal sealed class LayerStore : IDisposable
{
    private const string JobName = "job.json", FingerprintKey = "fingerprint", OptionsKey = "options";
    private readonly Dictionary<int, SafetensorsFile> files = [];

    private LayerStore(string folder) => Folder = folder;

    /// <summary>The folder.</summary>
    public string Folder { get; }

    /// <summary>Opens the folder, which is made where it is missing.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="options">What is done, for people.</param>
    /// <param name="fingerprint">What is done to what, exactly.</param>
    /// <exception cref="EngineException">It belongs to other work, or cannot be read or made.</exception>
    public static LayerStore Open(string folder, string options, string fingerprint)
    {
        AtomicFile.CreateFolder(folder);
        string path = Path.Combine(folder, JobName);
        byte[]? job = HfAssets.Read(folder, JobName);
        if (job is null)
        {
            // A process that was killed may have left the beginnings of that file, and no more.
            if (Directory.EnumerateFileSystemEntries(folder).Any(static entry => !Path.GetFileName(entry).StartsWith($"{JobName}.", StringComparison.Ordinal)))
            {
                throw new EngineException($"the folder for unfinished work holds something else; expected {JobName} in it", folder);
            }
            byte[] content = System.Text.Encoding.UTF8.GetBytes(
                new JsonObject { [OptionsKey] = options, [FingerprintKey] = fingerprint }.ToJsonString());
            AtomicFile.Write(path, stream => stream.Write(content));
        }
        else if (HfAssets.ParseObject(job, path) is { } found && found[FingerprintKey]?.ToString() != fingerprint)
        {
            throw new EngineException(
                $"unfinished work on another model, with another calibration text or other options is here ({found[OptionsKey]}): finish it, or delete the folder",
                folder);
        }
        return new LayerStore(folder);
    }

    /// <summary>The layer is finished.</summary>
    public bool Has(int layer) => files.ContainsKey(layer) || File.Exists(PathOf(layer));

    /// <summary>Stores a layer.</summary>
    /// <exception cref="EngineException">The file cannot be written.</exception>
    public void Save(int layer, IReadOnlyList<TensorSource> tensors, CancellationToken cancellationToken) =>
        SafetensorsWriter.Write(PathOf(layer), tensors, cancellationToken: cancellationToken);

    /// <summary>The tensors that a dense matrix is stored as.</summary>
    public static TensorSource Dense(MatrixPlace place, long[] shape, float[] values, DType dtype) =>
        TensorSource.FromValues(place.ToString(), shape, values, dtype);

    /// <summary>The tensor that a matrix of blocks is stored as.</summary>
    public static TensorSource Blocks(MatrixPlace place, int rows, QuantizedBlocks matrix)
    {
        byte[] bytes = matrix.ToBytes();
        return new TensorSource(place.ToString(), DType.U8, [rows, bytes.Length / rows], stream => stream.Write(bytes));
    }

    /// <summary>The tensors that a quantized matrix is stored as.</summary>
    public static IEnumerable<TensorSource> Quantized(MatrixPlace place, QuantizedMatrix matrix)
    {
        long[] groups = [matrix.Rows, matrix.Format.GroupsOf(matrix.Columns)];
        yield return new TensorSource(Codes(place), DType.U8, [matrix.Rows, matrix.Columns], stream => stream.Write(matrix.Codes));
        yield return TensorSource.FromValues(Scales(place), groups, matrix.Scales, matrix.ScaleType);
        yield return new TensorSource(Zeros(place), DType.U8, groups, stream => stream.Write(matrix.Zeros));
    }

    /// <summary>A matrix as floats or blocks.</summary>
    /// <exception cref="EngineException">The file is not what was written.</exception>
    public TensorView Whole(int layer, TargetMatrix matrix)
    {
        long[] shape = CompressedMatrices.Shape(matrix);
        return matrix.IsBlocks
            ? Find(layer, matrix.Place.ToString(), [matrix.Rows, matrix.Stored.RowBytes(matrix.Columns)], DType.U8) with { DType = matrix.Stored, Shape = shape }
            : Find(layer, matrix.Place.ToString(), shape, matrix.Stored);
    }

    /// <summary>A quantized matrix.</summary>
    /// <exception cref="EngineException">The file is not what was written.</exception>
    public QuantizedMatrix Quantized(int layer, MatrixPlace place, int rows, int columns, IntegerFormat format, DType scaleType)
    {
        QuantizedMatrix matrix = new(rows, columns, format, scaleType);
        long[] groups = [rows, format.GroupsOf(columns)];
        Find(layer, Codes(place), [rows, columns], DType.U8).Bytes.CopyTo(matrix.Codes);
        Find(layer, Scales(place), groups, scaleType).ToFloats().CopyTo(matrix.Scales, 0);
        Find(layer, Zeros(place), groups, DType.U8).Bytes.CopyTo(matrix.Zeros);
        return matrix;
    }

    /// <summary>Deletes the folder.</summary>
    /// <exception cref="EngineException">It cannot be deleted.</exception>
    public void Delete()
    {
        Dispose();
        try
        {
            // What says that the folder is ours goes last: whoever is killed meanwhile can begin again.
            foreach (string entry in Directory.GetFiles(Folder).Where(static entry => Path.GetFileName(entry) != JobName))
            {
                File.Delete(entry);
            }
            Directory.Delete(Folder, recursive: true);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new EngineException($"the folder of finished work cannot be deleted: {exception.Message}", Folder, inner: exception);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (SafetensorsFile file in files.Values)
        {
            file.Dispose();
        }
        files.Clear();
    }

    private static string Codes(MatrixPlace place) => $"{place}/codes";

    private static string Scales(MatrixPlace place) => $"{place}/scales";

    private static string Zeros(MatrixPlace place) => $"{place}/zeros";

    private string PathOf(int layer) => Path.Combine(Folder, string.Create(CultureInfo.InvariantCulture, $"layer-{layer:D5}.safetensors"));

    private TensorView Find(int layer, string name, long[] shape, DType dtype)
    {
        if (!files.TryGetValue(layer, out SafetensorsFile? file))
        {
            files[layer] = file = SafetensorsFile.Open(PathOf(layer));
        }
        TensorView tensor = file[name];
        return tensor.DType == dtype && tensor.Shape.AsSpan().SequenceEqual(shape)
            ? tensor
            : throw new EngineException(
                $"expected {dtype} [{string.Join(", ", shape)}], found {tensor.DType} {tensor.DescribeShape()}: delete the file, and it is made again",
                file.Path, name);
    }
}
