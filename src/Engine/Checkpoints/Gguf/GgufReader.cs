using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Unicode;

namespace Engine.Checkpoints.Gguf;

/// <summary>The value types of GGUF metadata, with their numbers in the file.</summary>
internal enum GgufType : uint
{
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

/// <summary>Reads the header of a GGUF file front to back. Every length is compared with what remains before anything is read or
/// allocated.</summary>
internal ref struct GgufReader
{
    private static readonly UTF8Encoding strict = new(false, throwOnInvalidBytes: true);
    private readonly ReadOnlySpan<byte> bytes;
    private readonly string path;

    /// <param name="bytes">The file from its start (or as much of it as a span holds: headers are far smaller).</param>
    /// <param name="path">For messages.</param>
    public GgufReader(ReadOnlySpan<byte> bytes, string path)
    {
        this.bytes = bytes;
        this.path = path;
    }

    public int Position { get; set; }

    public readonly int Remaining => bytes.Length - Position;

    /// <summary>Bytes of a value of a fixed-size type, or the fewest an element of another type can take.</summary>
    public static int MinimumSize(GgufType type) => type switch
    {
        GgufType.U8 or GgufType.I8 or GgufType.Bool => 1,
        GgufType.U16 or GgufType.I16 => 2,
        GgufType.U32 or GgufType.I32 or GgufType.F32 => 4,
        _ => 8,
    };

    public ReadOnlySpan<byte> Take(int count, string what)
    {
        if (count > Remaining)
            throw new EngineException($"the file ends inside {what}: {count} bytes needed, {Remaining} present", path);
        ReadOnlySpan<byte> taken = bytes.Slice(Position, count);
        Position += count;
        return taken;
    }

    public uint U32(string what) => BinaryPrimitives.ReadUInt32LittleEndian(Take(4, what));

    public ulong U64(string what) => BinaryPrimitives.ReadUInt64LittleEndian(Take(8, what));

    /// <summary>Reads a count of things that each take at least <paramref name="minimumSize"/> bytes.</summary>
    public int Count(int minimumSize, string what)
    {
        ulong count = U64(what);
        if (count > (ulong)(Remaining / minimumSize))
            throw new EngineException(
                $"{what} is {count}, but the {Remaining} bytes that follow hold at most {Remaining / minimumSize}", path);
        return (int)count;
    }

    private ReadOnlySpan<byte> Text(string what)
    {
        int length = Count(1, $"the length of {what}");
        ReadOnlySpan<byte> text = Take(length, what);
        return Utf8.IsValid(text) ? text : throw new EngineException($"{what} is not valid UTF-8", path);
    }

    public string String(string what) => strict.GetString(Text(what));

    public GgufType Type(string what)
    {
        uint type = U32(what);
        return type <= (uint)GgufType.F64 ? (GgufType)type : throw new EngineException(
            $"{what} is {type}; known value types are 0 to 12", path);
    }

    /// <summary>Reads a value that is not an array.</summary>
    public object Scalar(GgufType type, string what) => type switch
    {
        GgufType.U8 => Take(1, what)[0],
        GgufType.I8 => (sbyte)Take(1, what)[0],
        GgufType.U16 => BinaryPrimitives.ReadUInt16LittleEndian(Take(2, what)),
        GgufType.I16 => BinaryPrimitives.ReadInt16LittleEndian(Take(2, what)),
        GgufType.U32 => U32(what),
        GgufType.I32 => BinaryPrimitives.ReadInt32LittleEndian(Take(4, what)),
        GgufType.F32 => BinaryPrimitives.ReadSingleLittleEndian(Take(4, what)),
        GgufType.Bool => Bool(Take(1, what)[0], what),
        GgufType.String => String(what),
        GgufType.U64 => U64(what),
        GgufType.I64 => BinaryPrimitives.ReadInt64LittleEndian(Take(8, what)),
        GgufType.F64 => BinaryPrimitives.ReadDoubleLittleEndian(Take(8, what)),
        _ => throw new EngineException($"{what} is an array inside an array", path),
    };

    /// <summary>Steps over the elements of an array, checking them.</summary>
    // Opening a model is the first thing a process does: waiting for the tiered compiler would cost more than compiling well at once.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public void SkipArray(GgufType type, int count, string what)
    {
        switch (type)
        {
            case GgufType.Array:
                throw new EngineException($"{what} is an array of arrays, which no known model uses", path);
            case GgufType.String:
                // This runs a few hundred thousand times for a large vocabulary, so the message is made only when it is needed.
                for (int i = 0; i < count; i++)
                {
                    if (!TrySkipString())
                        throw new EngineException($"element {i} of {what} runs past the end of the file or is not valid UTF-8", path);
                }
                break;
            case GgufType.Bool:
                foreach (byte value in Take(count, what))
                    _ = Bool(value, what);
                break;
            default:
                Position += count * MinimumSize(type);
                break;
        }
    }

    /// <summary>Reads the elements of an array that <see cref="SkipArray"/> has checked.</summary>
    public Array Array(GgufType type, int count, string what)
    {
        return type switch
        {
            GgufType.U8 => Fill<byte>(ref this),
            GgufType.I8 => Fill<sbyte>(ref this),
            GgufType.U16 => Fill<ushort>(ref this),
            GgufType.I16 => Fill<short>(ref this),
            GgufType.U32 => Fill<uint>(ref this),
            GgufType.I32 => Fill<int>(ref this),
            GgufType.F32 => Fill<float>(ref this),
            GgufType.Bool => Fill<bool>(ref this),
            GgufType.U64 => Fill<ulong>(ref this),
            GgufType.I64 => Fill<long>(ref this),
            GgufType.F64 => Fill<double>(ref this),
            _ => Strings(ref this),
        };

        T[] Fill<T>(ref GgufReader reader)
            where T : unmanaged
        {
            var values = new T[count];
            reader.Take(count * MinimumSize(type), what).CopyTo(MemoryMarshal.AsBytes(values.AsSpan()));
            return values;
        }

        string[] Strings(ref GgufReader reader)
        {
            var values = new string[count];
            for (int i = 0; i < values.Length; i++)
                values[i] = Encoding.UTF8.GetString(reader.Take(reader.Count(1, what), what));
            return values;
        }
    }

    private readonly bool Bool(byte value, string what) =>
        value <= 1 ? value == 1 : throw new EngineException($"{what} holds the bool {value}; expected 0 or 1", path);

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private bool TrySkipString()
    {
        if (Remaining < sizeof(ulong))
            return false;
        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(bytes[Position..]);
        Position += sizeof(ulong);
        if (length > (ulong)Remaining)
            return false;
        bool valid = Utf8.IsValid(bytes.Slice(Position, (int)length));
        Position += (int)length;
        return valid;
    }
}
