using Engine.Checkpoints.Codecs;

namespace Engine.Checkpoints;

/// <summary>Reading the values of a <see cref="TensorView"/>.</summary>
public static class TensorViews
{
    /// <summary>Decodes one row.</summary>
    /// <param name="tensor">The tensor.</param>
    /// <param name="row">0 … <see cref="TensorView.Rows"/> − 1.</param>
    /// <param name="destination">[<see cref="TensorView.Columns"/>].</param>
    public static void DecodeRow(this TensorView tensor, long row, Span<float> destination)
    {
        if (tensor.Coded is { } coded)
            coded.DecodeRow(row, destination);
        else
            Codec.For(tensor.DType).Decode(tensor.Row(row), destination);
    }

    /// <summary>Decodes everything, row-major.</summary>
    /// <exception cref="EngineException">There are more elements than an array can hold.</exception>
    public static float[] ToFloats(this TensorView tensor)
    {
        if (tensor.ElementCount > Array.MaxLength)
            throw new EngineException($"{tensor.ElementCount} elements do not fit in one array", tensor.File(), tensor.Name);
        var values = new float[tensor.ElementCount];
        int columns = (int)tensor.Columns;
        for (long row = 0; row < tensor.Rows; row++)
            tensor.DecodeRow(row, values.AsSpan((int)(row * columns), columns));
        return values;
    }

    /// <summary>A run of the rows as a matrix: of a tensor of several matrices, one of them.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There are no such rows.</exception>
    public static TensorView SliceRows(this TensorView tensor, long first, long count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(first);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        if (tensor.Columns > 0)
            ArgumentOutOfRangeException.ThrowIfGreaterThan(count, tensor.Rows - first);
        if (tensor.Coded is { } coded)
            return TensorView.Of(new CodedRows(coded, first, count), tensor.Owner);
        return tensor with
        {
            Shape = [count, tensor.Columns],
            Address = tensor.Address + (nint)(first * tensor.RowBytes),
            ByteLength = count * tensor.RowBytes,
        };
    }

    /// <summary>
    /// Checks that no scale (no value, for plain floats) is NaN or infinite. Opening a checkpoint leaves tensor data untouched, so this is
    /// for whoever reads the data anyway: backends while packing, converters while decoding.
    /// </summary>
    /// <exception cref="EngineException">One is not; the message names the tensor and the place.</exception>
    public static void RequireFinite(this TensorView tensor)
    {
        for (long row = 0; row < tensor.Rows; row++)
            tensor.RequireFinite(row);
    }

    /// <summary>Checks one row as <see cref="RequireFinite(TensorView)"/> does.</summary>
    /// <exception cref="EngineException">A scale or value is NaN or infinite.</exception>
    public static void RequireFinite(this TensorView tensor, long row)
    {
        if (tensor.Coded is { } coded)
        {
            coded.RequireFinite(row);
            return;
        }
        long column = Codec.For(tensor.DType).IndexOfNonFinite(tensor.Row(row));
        if (column < 0)
            return;
        string what = tensor.DType.Info().BlockElements > 1 ? "the scale of the block" : "the value";
        throw new EngineException($"{what} at row {row}, column {column} is NaN or infinite", tensor.File(), tensor.Name);
    }

    /// <summary>Both have the same format, shape and bytes.</summary>
    public static bool ContentEquals(this TensorView tensor, TensorView other)
    {
        const int stretch = 1 << 20;
        if (tensor.DType != other.DType || !tensor.Shape.AsSpan().SequenceEqual(other.Shape))
            return false;
        if (tensor.Coded is { } coded && other.Coded is { } otherCoded)
            return coded.ContentEquals(otherCoded);
        if (tensor.Address == other.Address)
            return true;
        for (long offset = 0; offset < tensor.ByteLength; offset += stretch)
        {
            int length = (int)Math.Min(stretch, tensor.ByteLength - offset);
            if (!tensor.Slice(offset, length).SequenceEqual(other.Slice(offset, length)))
                return false;
        }
        return true;
    }

    /// <summary>Says that the bytes will not be read again soon, so that mapped pages need not stay in memory. Reading them again still
    /// works.</summary>
    public static void Evict(this TensorView tensor)
    {
        if (tensor.Coded is { } coded)
        {
            foreach (TensorView part in coded.Parts)
                part.Evict();
        }
        else if (tensor.Owner is MappedFile file)
        {
            file.Evict(tensor.Address, tensor.ByteLength);
        }
    }

    /// <summary>What the format calls itself, for people: <c>Q4_K</c>, <c>GPTQ int4</c>.</summary>
    public static string FormatName(this TensorView tensor) => tensor.Coded?.Format ?? tensor.DType.Info().Name;

    /// <summary>The shape for messages: <c>[32, 64]</c>.</summary>
    public static string DescribeShape(this TensorView tensor) => $"[{string.Join(", ", tensor.Shape)}]";

    /// <summary>The file that the bytes are mapped or were made from, or null.</summary>
    internal static string? File(this TensorView tensor) => tensor.Owner switch
    {
        MappedFile file => file.Path,
        UnmanagedBuffer buffer => buffer.File,
        _ => tensor.Coded?.Parts[0].File(),
    };
}
