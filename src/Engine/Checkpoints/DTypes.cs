using System.Collections.Immutable;
using Engine.Checkpoints.Codecs;

namespace Engine.Checkpoints;

/// <summary>What is known about a <see cref="DType"/> without looking at data.</summary>
/// <param name="DType">The type.</param>
/// <param name="Name">Name for people; also the name in ggml where it has one.</param>
/// <param name="BlockElements">Elements that are stored together; a row is a whole number of blocks.</param>
/// <param name="BlockBytes">Bytes of a block.</param>
/// <param name="GgmlId">Number of the type in GGUF, or null where GGUF has none.</param>
/// <param name="SafetensorsName">Name of the type in safetensors, or null where safetensors has none.</param>
public sealed record DTypeInfo(DType DType, string Name, int BlockElements, int BlockBytes, uint? GgmlId, string? SafetensorsName);

/// <summary>The table of element types: the one place where sizes, ggml numbers and safetensors names are written down.</summary>
public static class DTypes
{
    /// <summary>Every type, in the order of the enumeration.</summary>
    public static ImmutableArray<DTypeInfo> All { get; } =
    [
        new(DType.F32, "F32", 1, 4, 0, "F32"),
        new(DType.F16, "F16", 1, 2, 1, "F16"),
        new(DType.BF16, "BF16", 1, 2, 30, "BF16"),
        new(DType.F64, "F64", 1, 8, 28, "F64"),
        new(DType.I8, "I8", 1, 1, 24, "I8"),
        new(DType.I16, "I16", 1, 2, 25, "I16"),
        new(DType.I32, "I32", 1, 4, 26, "I32"),
        new(DType.I64, "I64", 1, 8, 27, "I64"),
        new(DType.U8, "U8", 1, 1, null, "U8"),
        new(DType.U16, "U16", 1, 2, null, "U16"),
        new(DType.U32, "U32", 1, 4, null, "U32"),
        new(DType.U64, "U64", 1, 8, null, "U64"),
        new(DType.Bool, "BOOL", 1, 1, null, "BOOL"),
        new(DType.Q4_0, "Q4_0", Q4_0Format.BlockElements, Q4_0Format.BlockBytes, 2, null),
        new(DType.Q4_1, "Q4_1", Q4_1Format.BlockElements, Q4_1Format.BlockBytes, 3, null),
        new(DType.Q5_0, "Q5_0", Q5_0Format.BlockElements, Q5_0Format.BlockBytes, 6, null),
        new(DType.Q5_1, "Q5_1", Q5_1Format.BlockElements, Q5_1Format.BlockBytes, 7, null),
        new(DType.Q8_0, "Q8_0", Q8_0Format.BlockElements, Q8_0Format.BlockBytes, 8, null),
        new(DType.Q4_K, "Q4_K", Q4_KFormat.BlockElements, Q4_KFormat.BlockBytes, 12, null),
        new(DType.Q5_K, "Q5_K", Q5_KFormat.BlockElements, Q5_KFormat.BlockBytes, 13, null),
        new(DType.Q6_K, "Q6_K", Q6_KFormat.BlockElements, Q6_KFormat.BlockBytes, 14, null),
        new(DType.F8_E4M3, "F8_E4M3", 1, 1, null, "F8_E4M3"),
        new(DType.F8_E5M2, "F8_E5M2", 1, 1, null, "F8_E5M2"),
        new(DType.F8_E8M0, "F8_E8M0", 1, 1, null, "F8_E8M0"),
        new(DType.MXFP4, "MXFP4", MXFP4Format.BlockElements, MXFP4Format.BlockBytes, 39, null),
        new(DType.Q2_K, "Q2_K", Q2_KFormat.BlockElements, Q2_KFormat.BlockBytes, 10, null),
        new(DType.Q3_K, "Q3_K", Q3_KFormat.BlockElements, Q3_KFormat.BlockBytes, 11, null),
        new(DType.IQ4_NL, "IQ4_NL", IQ4_NLFormat.BlockElements, IQ4_NLFormat.BlockBytes, 20, null),
        new(DType.IQ4_XS, "IQ4_XS", IQ4_XSFormat.BlockElements, IQ4_XSFormat.BlockBytes, 23, null),
        new(DType.IQ3_XXS, "IQ3_XXS", IQ3_XXSFormat.BlockElements, IQ3_XXSFormat.BlockBytes, 18, null),
        new(DType.IQ3_S, "IQ3_S", IQ3_SFormat.BlockElements, IQ3_SFormat.BlockBytes, 21, null),
        new(DType.IQ2_XXS, "IQ2_XXS", IQ2_XXSFormat.BlockElements, IQ2_XXSFormat.BlockBytes, 16, null),
        new(DType.IQ2_XS, "IQ2_XS", IQ2_XSFormat.BlockElements, IQ2_XSFormat.BlockBytes, 17, null),
        new(DType.IQ2_S, "IQ2_S", IQ2_SFormat.BlockElements, IQ2_SFormat.BlockBytes, 22, null),
        new(DType.IQ1_S, "IQ1_S", IQ1_SFormat.BlockElements, IQ1_SFormat.BlockBytes, 19, null),
        new(DType.IQ1_M, "IQ1_M", IQ1_MFormat.BlockElements, IQ1_MFormat.BlockBytes, 29, null),
        new(DType.TQ1_0, "TQ1_0", TQ1_0Format.BlockElements, TQ1_0Format.BlockBytes, 34, null),
        new(DType.TQ2_0, "TQ2_0", TQ2_0Format.BlockElements, TQ2_0Format.BlockBytes, 35, null),
        new(DType.NVFP4, "NVFP4", NVFP4Format.BlockElements, NVFP4Format.BlockBytes, 40, null),
        new(DType.Q1_0, "Q1_0", Q1_0Format.BlockElements, Q1_0Format.BlockBytes, 41, null),
        new(DType.Q2_0, "Q2_0", Q2_0Format.BlockElements, Q2_0Format.BlockBytes, 42, null),
        new(DType.Coded, "coded", 1, 0, null, null),
    ];

    /// <summary>The table's entry for a type.</summary>
    public static DTypeInfo Info(this DType dtype) => All[(int)dtype];

    /// <summary>Finds a type by its name for people, whatever the case (<c>q4_k</c>).</summary>
    public static bool TryParse(string name, out DType dtype) =>
        TryFind(info => string.Equals(info.Name, name, StringComparison.OrdinalIgnoreCase), out dtype);

    /// <summary>Finds a type by its safetensors name.</summary>
    public static bool TryFromSafetensors(string name, out DType dtype) => TryFind(info => info.SafetensorsName == name, out dtype);

    /// <summary>Finds a type by its number in GGUF.</summary>
    public static bool TryFromGgml(uint id, out DType dtype) => TryFind(info => info.GgmlId == id, out dtype);

    /// <summary>Says why a GGUF type number that <see cref="TryFromGgml"/> does not know is refused.</summary>
    public static string DescribeUnsupportedGgml(uint id) => id switch
    {
        4 or 5 or (>= 31 and <= 33) or (>= 37 and <= 38) =>
            $"ggml type {id} was removed from GGUF; the file must be converted again from its source",
        36 or (>= 97 and <= 99) or (>= 133 and <= 158) or (>= 202 and <= 399) =>
            $"ik_llama.cpp type {id} is not part of GGUF; requantize the model with llama.cpp",
        _ when UnsupportedGgmlName(id) is { } name => $"ggml type {name} ({id}) is not supported yet",
        _ => $"unknown ggml type {id}",
    };

    /// <summary>Bytes of a row of <paramref name="columns"/> elements.</summary>
    /// <exception cref="EngineException">The row is not a whole number of blocks.</exception>
    public static long RowBytes(this DType dtype, long columns)
    {
        DTypeInfo info = dtype.Info();
        return columns % info.BlockElements == 0
            ? checked(columns / info.BlockElements * info.BlockBytes)
            : throw new EngineException($"{info.Name} needs rows of a multiple of {info.BlockElements} elements, found {columns}");
    }

    /// <summary>
    /// Bytes of a tensor, or null where the product of the dimensions or the length does not fit in 63 bits. A zero dimension makes an
    /// empty tensor, but the others still may not overflow: a wrapped product must never look small.
    /// </summary>
    /// <exception cref="EngineException">A row is not a whole number of blocks.</exception>
    internal static long? TryByteLength(this DType dtype, ReadOnlySpan<long> shape)
    {
        UInt128 elements = 1;
        bool empty = false;
        foreach (long dimension in shape)
        {
            ArgumentOutOfRangeException.ThrowIfNegative(dimension);
            empty |= dimension == 0;
            elements *= (UInt128)Math.Max(dimension, 1);
            if (elements > long.MaxValue)
                return null;
        }
        long columns = shape.Length == 0 ? 1 : shape[^1];
        DTypeInfo info = dtype.Info();
        if (columns % info.BlockElements != 0)
            throw new EngineException($"{info.Name} needs rows of a multiple of {info.BlockElements} elements, found {columns}");
        if (empty)
            return 0;
        UInt128 bytes = elements / (UInt128)info.BlockElements * (UInt128)info.BlockBytes;
        return bytes > long.MaxValue ? null : (long)bytes;
    }

    private static bool TryFind(Func<DTypeInfo, bool> matches, out DType dtype)
    {
        foreach (DTypeInfo info in All)
        {
            if (matches(info))
            {
                dtype = info.DType;
                return true;
            }
        }
        dtype = default;
        return false;
    }

    private static string? UnsupportedGgmlName(uint id) => id switch
    {
        9 => "Q8_1",
        15 => "Q8_K",
        _ => null,
    };
}
