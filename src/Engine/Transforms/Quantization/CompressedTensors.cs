using System.Buffers.Binary;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Transforms.Pruning;

namespace Engine.Transforms.Quantization;

/// <summary>
/// Quantized matrices as the compressed-tensors format stores them, and what <c>config.json</c> says about them (formats.md sections 3.1, 3.2 and 4.2).
/// 8-bit codes with one symmetric scale per output are <c>int-quantized</c>, where two of four are kept as <c>sparse-24-bitmask</c>; all others are
/// <c>pack-quantized</c>.
/// </summary>
public static class CompressedTensors
{
    /// <summary>The version of the format that is written.</summary>
    public const string Version = "0.12.2";

    private const int WordBits = 32;

    /// <summary>The tensors of a matrix; each asks for the matrix when its turn comes.</summary>
    /// <param name="module">The matrix' name without <c>.weight</c>.</param>
    /// <param name="shape">[outputs, inputs].</param>
    /// <param name="format">Its grid.</param>
    /// <param name="scaleType">How its scales are stored.</param>
    /// <param name="pattern">What was pruned, or null.</param>
    /// <param name="load">Gives the matrix.</param>
    public static IReadOnlyList<TensorSource> Tensors(
        string module, (int Rows, int Columns) shape, IntegerFormat format, DType scaleType, SparsityPattern? pattern, Func<QuantizedMatrix> load)
    {
        ArgumentNullException.ThrowIfNull(format);
        (int rows, int columns) = shape;
        int groups = format.GroupsOf(columns), wordCodes = WordBits / format.Bits;
        TensorSource scales = new(
            $"{module}.weight_scale", scaleType, [rows, groups],
            stream => TensorSource.FromValues("", [rows, groups], load().Scales, scaleType).WriteTo(stream));
        if (IsPacked(format))
        {
            List<TensorSource> packed =
            [
                Bytes($"{module}.weight_packed", DType.I32, [rows, Words(columns)], () => Pack(load().Codes, rows, columns, format.Bits)),
                scales,
                Bytes($"{module}.weight_shape", DType.I64, [2], () => Integers(rows, columns)),
            ];
            if (!format.IsSymmetric)
            {
                packed.Add(Bytes($"{module}.weight_zero_point", DType.I32, [Words(rows), groups], () => PackZeros(load(), groups)));
            }
            return packed;
        }
        if (!IsSparse(format, pattern))
        {
            return [Bytes($"{module}.weight", DType.I8, [rows, columns], () => Signed(load())), scales];
        }
        return
        [
            Bytes($"{module}.compressed", DType.I8, [rows, columns / 2], () => Compact(Signed(load()), rows, columns).Kept),
            Bytes($"{module}.bitmask", DType.U8, [rows, (columns + 7) / 8], () => Compact(Signed(load()), rows, columns).Mask),
            Bytes($"{module}.shape", DType.I64, [2, 1], () => Integers(rows, columns)),
            scales,
        ];

        int Words(int codes) => (codes + wordCodes - 1) / wordCodes;
    }

    /// <summary>The value of <c>quantization_config</c>.</summary>
    /// <param name="format">The grid of all quantized matrices.</param>
    /// <param name="pattern">What was pruned, or null.</param>
    /// <param name="ignored">Modules with matrices that are not quantized.</param>
    /// <param name="ordered">Inputs were rounded in the order of their activations; readers of groups are told so, for whom it changes nothing.</param>
    public static JsonObject Config(IntegerFormat format, SparsityPattern? pattern, IEnumerable<string> ignored, bool ordered = false)
    {
        ArgumentNullException.ThrowIfNull(format);
        string[] names = [.. ignored];
        string layout = IsPacked(format) ? "pack-quantized" : "int-quantized";
        return new JsonObject
        {
            ["quant_method"] = "compressed-tensors",
            ["version"] = Version,
            ["format"] = layout,
            ["quantization_status"] = "compressed",
            ["config_groups"] = new JsonObject
            {
                ["group_0"] = new JsonObject
                {
                    ["targets"] = new JsonArray("Linear"),
                    ["weights"] = Arguments(format.Bits, format.IsSymmetric, format.GroupColumns is null ? "channel" : "group", format.GroupColumns, false, ordered),
                    // What reads int-quantized files multiplies in integers, with a scale per token.
                    ["input_activations"] = IsPacked(format) ? null : Arguments(8, true, "token", null, true),
                    ["output_activations"] = null,
                    ["format"] = layout,
                },
            },
            ["ignore"] = Array(names),
            ["kv_cache_scheme"] = null,
            ["global_compression_ratio"] = null,
            ["sparsity_config"] = !IsSparse(format, pattern) ? [] : new JsonObject
            {
                ["format"] = "sparse-24-bitmask",
                ["targets"] = new JsonArray("Linear"),
                ["ignore"] = Array(names),
                ["sparsity_structure"] = "2:4",
                ["global_sparsity"] = SparsityPattern.TwoOfFour.Ratio,
                ["registry_requires_subclass"] = false,
            },
            ["transform_config"] = new JsonObject(),
        };
    }

    private static bool IsPacked(IntegerFormat format) => format.Bits != 8 || format.GroupColumns is not null || !format.IsSymmetric;

    private static bool IsSparse(IntegerFormat format, SparsityPattern? pattern) => !IsPacked(format) && pattern is { IsTwoOfFour: true };

    private static JsonArray Array(string[] names) => new([.. names.Select(static name => (JsonNode)name)]);

    private static JsonObject Arguments(int bits, bool symmetric, string strategy, int? group, bool dynamic, bool ordered = false) => new()
    {
        ["num_bits"] = bits,
        ["type"] = "int",
        ["symmetric"] = symmetric,
        ["strategy"] = strategy,
        ["group_size"] = group,
        ["block_structure"] = null,
        ["dynamic"] = dynamic,
        ["actorder"] = ordered && group is not null ? "weight" : null,
        ["observer"] = dynamic ? null : "minmax",
        ["observer_kwargs"] = new JsonObject(),
    };

    /// <summary>Codes as integers around zero.</summary>
    private static byte[] Signed(QuantizedMatrix matrix) => [.. matrix.Codes.Select(code => (byte)(code - matrix.Format.MiddleCode))];

    /// <summary>Zero points are packed along the outputs: [words, groups].</summary>
    private static byte[] PackZeros(QuantizedMatrix matrix, int groups)
    {
        byte[] turned = new byte[matrix.Zeros.Length];
        for (int i = 0; i < turned.Length; i++)
        {
            turned[i] = matrix.Zeros[i % matrix.Rows * groups + i / matrix.Rows];
        }
        return Turn(Pack(turned, groups, matrix.Rows, matrix.Format.Bits), groups);
    }

    /// <summary>Words of codes, the first in the lowest bits, each row beginning with a new word.</summary>
    private static byte[] Pack(byte[] codes, int rows, int columns, int bits)
    {
        int wordCodes = WordBits / bits, words = (columns + wordCodes - 1) / wordCodes;
        byte[] packed = new byte[(long)rows * words * sizeof(uint)];
        for (int row = 0; row < rows; row++)
        {
            for (int word = 0; word < words; word++)
            {
                uint value = 0;
                for (int i = 0, column = word * wordCodes; i < wordCodes && column < columns; i++, column++)
                {
                    value |= (uint)codes[row * columns + column] << (i * bits);
                }
                BinaryPrimitives.WriteUInt32LittleEndian(packed.AsSpan((row * words + word) * sizeof(uint)), value);
            }
        }
        return packed;
    }

    /// <summary>The words of [rows, words] as [words, rows].</summary>
    private static byte[] Turn(byte[] packed, int rows)
    {
        byte[] turned = new byte[packed.Length];
        int words = packed.Length / rows / sizeof(uint);
        for (int row = 0; row < rows; row++)
        {
            for (int word = 0; word < words; word++)
            {
                packed.AsSpan((row * words + word) * sizeof(uint), sizeof(uint)).CopyTo(turned.AsSpan((word * rows + row) * sizeof(uint)));
            }
        }
        return turned;
    }

    /// <summary>Of each four codes the two that are not 0, filled up with the first that are; and a bit for each code that is kept.</summary>
    private static (byte[] Kept, byte[] Mask) Compact(byte[] codes, int rows, int columns)
    {
        int maskBytes = (columns + 7) / 8, next = 0;
        byte[] kept = new byte[codes.Length / 2], mask = new byte[rows * maskBytes];
        for (int first = 0; first < codes.Length; first += SparsityPattern.GroupColumns)
        {
            ReadOnlySpan<byte> group = codes.AsSpan(first, SparsityPattern.GroupColumns);
            int spare = SparsityPattern.Kept - (group.Length - group.Count((byte)0));
            for (int i = 0; i < group.Length; i++)
            {
                if (group[i] != 0 || spare-- > 0)
                {
                    kept[next++] = group[i];
                    int column = first % columns + i;
                    mask[first / columns * maskBytes + column / 8] |= (byte)(1 << (column % 8));
                }
            }
        }
        return (kept, mask);
    }

    private static byte[] Integers(long first, long second)
    {
        byte[] bytes = new byte[2 * sizeof(long)];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, first);
        BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(sizeof(long)), second);
        return bytes;
    }

    private static TensorSource Bytes(string name, DType dtype, long[] shape, Func<byte[]> stored) => new(name, dtype, shape, stream => stream.Write(stored()));
}
