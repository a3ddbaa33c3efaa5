using System.Collections.Frozen;
using System.Collections.Immutable;

namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>
/// Modules as compressed-tensors stores them (github.com/vllm-project/compressed-tensors, compressors/): integers and floats in all its packings, and two-of-four
/// masks with and without them. Activations are not quantized as the configuration says but as the kernels do: their scales are left alone.
/// </summary>
internal sealed class CompressedModules(CompressedTensorsConfig config) : ICodedModules
{
    private const string Packed = "weight_packed", Scale = "weight_scale", Zero = "weight_zero_point", Shape = "weight_shape", Groups = "weight_g_idx";
    private const string Kept = "compressed", Mask = "bitmask", MaskShape = "shape", RowOffsets = "row_offsets";

    /// <summary>Formats that are read.</summary>
    public static FrozenSet<string> Formats { get; } = FrozenSet.Create(
        "pack-quantized", "int-quantized", "naive-quantized", "float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized", "marlin-24");

    /// <inheritdoc/>
    public IReadOnlySet<string> Companions { get; } = FrozenSet.Create(
        Packed, Scale, Zero, Shape, Groups, "weight_global_scale", "input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point",
        "k_scale", "v_scale", "q_scale", Kept, Mask, MaskShape, RowOffsets, Marlin24.Meta, Marlin24.Scale);

    /// <inheritdoc/>
    public CodedWeight? Read(CodedModule module)
    {
        CodedScheme? scheme = config.SchemeOf(module.Name);
        if (module.Has(Mask))
        {
            return ReadMasked(module, scheme);
        }
        if (scheme is null)
        {
            return module.Has(Packed) || module.Has(Scale)
                ? throw new EngineException("the module has quantized tensors, but no group of the configuration is for it", module.Source.Path, module.Name)
                : null;
        }
        if (module.Find("weight") is { DType: DType.F32 or DType.F16 or DType.BF16 } && !module.Has(Packed))
        {
            return null; // A class matches modules that were left as they were, embeddings and norms among them.
        }
        if (!module.Has("weight") && !module.Has(Packed))
        {
            return null; // Scales of activations or of a KV cache alone.
        }
        return CodedWeight.Of(scheme.Format switch
        {
            "pack-quantized" => ReadPacked(module, scheme),
            "int-quantized" or "naive-quantized" or "float-quantized" => ReadPlain(module, scheme),
            "nvfp4-pack-quantized" => Nvfp4Matrix.Read(module, Packed, "weight_global_scale", divides: true),
            "mxfp4-pack-quantized" => ReadPowers(module, Packed, CodeNumbers.E2M1, scheme),
            "mxfp8-quantized" => ReadPowers(module, "weight", CodeNumbers.E4M3, scheme),
            "marlin-24" => Marlin24.Read(module, scheme),
            _ => throw module.Error("weight", $"the weight is quantized, but its format is '{scheme.Format}'"),
        });
    }

    /// <summary>Integers in 32-bit words.</summary>
    private static StoredMatrix ReadPacked(CodedModule module, CodedScheme scheme)
    {
        TensorView packed = module.Get(Packed, DType.I32);
        TensorView shape = module.Get(Shape, [2], DType.I64, DType.I32);
        (long rows, int columns) = module.RequireSize(Shape, shape.Integer(0), shape.Integer(1));
        int bits = scheme.Bits;
        long padded = (columns + 32 / bits - 1) / (32 / bits), dense = (columns * (long)bits + 31) / 32;
        if (packed.Shape.Length != 2 || packed.Shape[0] != rows || (packed.Shape[1] != padded && packed.Shape[1] != dense))
        {
            throw module.Error(Packed, $"expected the shape [{rows}, {dense}]{(padded == dense ? "" : $" or [{rows}, {padded}]")}; found {packed.DescribeShape()}");
        }
        bool isDense = packed.Shape[1] == dense;
        CodeReader byColumn = 32 % bits == 0 || !isDense ? CodeReaders.Words(packed, bits) : CodeReaders.Stream(packed, bits);
        int perRow = GroupsOf(scheme, columns, out int groupColumns);
        TensorView scales = ScalesOf(module, scheme, rows, perRow);
        TensorView? indices = scheme.ByActivationOrder ? module.Find(Groups) : null;
        ColumnGroups groups = indices is not null && !IsUnset(indices)
            ? module.ReadGroups(Groups, columns, perRow, groupColumns) : ColumnGroups.Runs(groupColumns);
        TensorView? zeros = scheme.Symmetric ? null : scheme.Reach == ScaleReach.Tensor
            ? module.Get(Zero, DType.I8, DType.I32) : module.Get(Zero, DType.I32);
        ScaleReader readScales = ScaleReaders.Floats(scales, scheme.Reach == ScaleReach.Tensor ? long.MaxValue : 1, perRow, groups);
        if (zeros is not null)
        {
            ScaleReader floats = readScales;
            Func<long, int, int> zeroAt = PackedZero(module, zeros, scheme, rows, perRow, isDense);
            readScales = (row, destination, points) =>
            {
                floats(row, destination, points);
                for (int i = 0; i < destination.Length; i++)
                {
                    points[i] = zeroAt(row, groups.ScaleOf(i));
                }
            };
        }
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = $"pack-quantized int{bits}",
            Rows = rows,
            Columns = columns,
            Bits = bits,
            Numbers = CodeNumbers.Integer,
            GroupColumns = groups.GroupColumns,
            Order = groups.Order,
            Zero = scheme.Symmetric ? 1 << (bits - 1) : null,
            Codes = groups.Arrange(columns, byColumn),
            Scales = readScales,
            Parts = [packed, scales, .. Stored(zeros), .. Stored(indices)],
        };
    }

    /// <summary>Zero points are packed down the rows, [⌈rows · bits / 32⌉, groups], with 2^(bits − 1) added as codes have it; of a whole tensor there is one, plain.</summary>
    private static Func<long, int, int> PackedZero(CodedModule module, TensorView zeros, CodedScheme scheme, long rows, int perRow, bool isDense)
    {
        int bits = scheme.Bits, perWord = 32 / bits;
        if (scheme.Reach == ScaleReach.Tensor)
        {
            if (zeros.ElementCount != 1)
            {
                throw module.Error(Zero, $"expected one zero point; found {zeros.DescribeShape()}");
            }
            int zero = (zeros.DType == DType.I8 ? (sbyte)zeros.Byte(0) : (int)zeros.Integer(0)) + (1 << (bits - 1));
            return (_, _) => zero;
        }
        module.RequireShape(Zero, zeros, isDense ? (rows * bits + 31) / 32 : (rows + perWord - 1) / perWord, perRow);
        if (isDense)
        {
            return (row, group) => (int)zeros.Field(group, perRow, row, bits);
        }
        return (row, group) => (int)(zeros.Word(row / perWord * perRow + group) >> (int)(row % perWord * bits)) & ((1 << bits) - 1);
    }

    /// <summary>Bytes: signed integers or E4M3.</summary>
    private static StoredMatrix ReadPlain(CodedModule module, CodedScheme scheme)
    {
        TensorView weight = module.Get("weight", scheme.IsFloat ? DType.F8_E4M3 : DType.I8);
        (long rows, int columns) = RequireMatrix(module, "weight", weight);
        return Plain(module, scheme, rows, columns, CodeReaders.Bytes(weight, FlipOf(scheme)), [weight]);
    }

    private static StoredMatrix Plain(CodedModule module, CodedScheme scheme, long rows, int columns, CodeReader codes, ImmutableArray<TensorView> stored)
    {
        int perRow = GroupsOf(scheme, columns, out int groupColumns);
        TensorView scales = ScalesOf(module, scheme, rows, perRow);
        long rowsPerScale = RowsPerScale(scheme);
        ScaleReader readScales = ScaleReaders.Floats(scales, rowsPerScale, perRow);
        TensorView? zeros = null;
        if (!scheme.Symmetric && !scheme.IsFloat)
        {
            zeros = module.Get(Zero, DType.I8);
            if (!zeros.Shape.AsSpan().SequenceEqual(scales.Shape) && zeros.ElementCount != scales.ElementCount)
            {
                throw module.Error(Zero, $"expected the shape of the scales, {scales.DescribeShape()}; found {zeros.DescribeShape()}");
            }
            ScaleReader floats = readScales;
            readScales = (row, destination, points) =>
            {
                floats(row, destination, points);
                for (int i = 0; i < destination.Length; i++)
                {
                    points[i] = (zeros.Byte(row / rowsPerScale * perRow + i) ^ 0x80) & 0xFF;
                }
            };
        }
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = $"{scheme.Format} {(scheme.IsFloat ? "fp" : "int")}{scheme.Bits}{(stored.Length > 1 ? ", 2:4 by mask" : "")}",
            Rows = rows,
            Columns = columns,
            Bits = 8,
            Numbers = scheme.IsFloat ? CodeNumbers.E4M3 : CodeNumbers.Integer,
            Table = scheme.IsFloat ? CodeTables.Of(CodeNumbers.E4M3) : [],
            GroupColumns = groupColumns,
            Zero = scheme.IsFloat ? 0 : scheme.Symmetric ? 128 : null,
            Codes = codes,
            Scales = readScales,
            Parts = zeros is null ? [.. stored, scales] : [.. stored, scales, zeros],
        };
    }

    /// <summary>MXFP4 and MXFP8: floats with a power of two per 32 inputs.</summary>
    private static StoredMatrix ReadPowers(CodedModule module, string weightName, CodeNumbers numbers, CodedScheme scheme)
    {
        bool nibbles = numbers == CodeNumbers.E2M1;
        TensorView weight = module.Get(weightName, nibbles ? DType.U8 : DType.F8_E4M3);
        (long rows, int stored) = RequireMatrix(module, weightName, weight);
        const int Group = 32;
        int columns = nibbles ? checked(2 * stored) : stored, perRow = (columns + Group - 1) / Group;
        TensorView powers = module.Get(Scale, [rows, perRow], DType.U8, DType.F8_E8M0);
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = nibbles ? "MXFP4" : "MXFP8",
            Rows = rows,
            Columns = columns,
            Bits = scheme.Bits,
            Numbers = numbers,
            Table = CodeTables.Of(numbers),
            GroupColumns = Group,
            Zero = 0,
            Codes = nibbles ? CodeReaders.Nibbles(weight) : CodeReaders.Bytes(weight, 0),
            Scales = (row, destination, _) =>
            {
                for (int i = 0; i < destination.Length; i++)
                {
                    byte power = powers.Byte(row * perRow + i);
                    destination[i] = power == 0xFF ? float.NaN : MathF.ScaleB(1f, power - 127);
                }
            },
            Parts = [weight, powers],
        };
    }

    /// <summary>Weights of which a mask says where the stored ones are.</summary>
    private CodedWeight ReadMasked(CodedModule module, CodedScheme? scheme)
    {
        TensorView shape = module.Get(MaskShape, DType.I64, DType.I32), mask = module.Get(Mask, DType.U8), kept = module.Get(
            Kept, DType.I8, DType.F8_E4M3, DType.F32, DType.F16, DType.BF16);
        if (shape.ElementCount != 2)
        {
            throw module.Error(MaskShape, $"expected two sizes; found {shape.DescribeShape()}");
        }
        (long rows, int columns) = module.RequireSize(MaskShape, shape.Integer(0), shape.Integer(1));
        module.RequireShape(Mask, mask, rows, (columns + 7) / 8);
        bool twoOfFour = !module.Has(RowOffsets);
        if (twoOfFour)
        {
            BitMasks.RequireTwoOfFour(module, mask, columns);
            module.RequireShape(Kept, kept, rows, columns / 2);
        }
        long[] offsets = BitMasks.Offsets(mask, columns, module);
        if (!twoOfFour)
        {
            module.RequireShape(Kept, kept, offsets[^1]);
            TensorView stored = module.Get(RowOffsets, [rows], DType.I64, DType.I32);
            for (long row = 0; row < rows; row++)
            {
                if (stored.Integer(row) != offsets[row])
                {
                    throw module.Error(RowOffsets, $"expected {offsets[row]} for row {row}, as the mask says; found {stored.Integer(row)}");
                }
            }
        }
        if (kept.DType is DType.I8 or DType.F8_E4M3)
        {
            if (scheme is null || scheme.IsFloat != (kept.DType == DType.F8_E4M3) || scheme.Format is not ("int-quantized" or "naive-quantized" or "float-quantized"))
            {
                throw module.Error(Kept, $"found {kept.DType}, which does not fit {(scheme is null ? "a module that is not quantized" : $"the format {scheme.Format}")}");
            }
            byte flip = FlipOf(scheme);
            CodeReader codes = twoOfFour ? CodeReaders.Masked(kept, mask, flip, flip) : BitMasks.Codes(kept, mask, offsets, flip);
            return CodedWeight.Of(Plain(module, scheme, rows, columns, codes, [kept, mask]));
        }
        return BitMasks.Dense(module.WeightName, kept, mask, offsets, rows, columns);
    }

    private static ImmutableArray<TensorView> Stored(TensorView? tensor) => tensor is null ? [] : [tensor];

    private static byte FlipOf(CodedScheme scheme) => (byte)(scheme.IsFloat ? 0 : 0x80);

    private static (long Rows, int Columns) RequireMatrix(CodedModule module, string suffix, TensorView tensor) => tensor.Shape.Length == 2
        ? module.RequireSize(suffix, tensor.Shape[0], tensor.Shape[1])
        : throw module.Error(suffix, $"expected a matrix; found {tensor.DescribeShape()}");

    private static long RowsPerScale(CodedScheme scheme) => scheme.Reach switch
    {
        ScaleReach.Tensor => long.MaxValue,
        ScaleReach.Block => scheme.Block.Rows,
        _ => 1,
    };

    private static int GroupsOf(CodedScheme scheme, int columns, out int groupColumns)
    {
        groupColumns = Math.Min(columns, scheme.Reach switch
        {
            ScaleReach.Group => scheme.GroupSize,
            ScaleReach.Block => scheme.Block.Columns,
            _ => columns,
        });
        return (columns + groupColumns - 1) / groupColumns;
    }

    private static TensorView ScalesOf(CodedModule module, CodedScheme scheme, long rows, int perRow) => scheme.Reach switch
    {
        ScaleReach.Tensor => module.GetFloats(Scale, [1], [], [1, 1]),
        ScaleReach.Channel => module.GetFloats(Scale, [rows, 1], [rows]),
        ScaleReach.Block => module.GetFloats(Scale, [(rows + scheme.Block.Rows - 1) / scheme.Block.Rows, perRow]),
        _ => module.GetFloats(Scale, [rows, perRow]),
    };

    /// <summary>A tensor of groups that was never filled in.</summary>
    private static bool IsUnset(TensorView groups)
    {
        for (long i = 0; i < groups.ElementCount; i++)
        {
            if (groups.Integer(i) == -1)
            {
                return true;
            }
        }
        return false;
    }
}
