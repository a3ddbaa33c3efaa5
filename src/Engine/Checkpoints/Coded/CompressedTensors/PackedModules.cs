namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>
/// Modules of the format <c>pack-quantized</c>: integers plus 2^(bits − 1) in 32-bit words along the inputs, lowest bits first. Where the width does not divide 32
/// there are two layouts of one name (formats.md §3.2): in older files no code lies across two words, in newer ones a row is one stream of bits.
/// </summary>
internal sealed class PackedModules(CompressedTensorsConfig config)
{
    /// <summary>The format's name.</summary>
    public const string Format = "pack-quantized";

    /// <summary>What a module's tensors are called.</summary>
    public const string Packed = "weight_packed", Shape = "weight_shape", Zero = "weight_zero_point", Groups = "weight_g_idx";

    private const int WordBits = 32;

    private Lazy<bool?>? denseElsewhere;

    /// <summary>Reads a module.</summary>
    /// <exception cref="EngineException">Tensors are missing or do not fit the configuration or each other.</exception>
    public StoredMatrix Read(CodedModule module, CodedScheme scheme)
    {
        int bits = scheme.Bits;
        TensorView packed = module.Get(Packed, DType.I32);
        if (scheme.IsFloat)
        {
            throw module.Error(Packed, "the format is for integers; the configuration says floats");
        }
        (long rows, int columns) = SizeOf(module);
        bool dense = IsDense(module, packed, scheme, rows, columns);
        TensorView scales = scheme.ScalesOf(module, rows, columns);
        int perRow = scheme.GroupsOf(columns);
        TensorView? indices = scheme.Reach == ScaleReach.Group && (scheme.ByActivationOrder || module.Has(Groups))
            ? module.Get(Groups, [columns], DType.I32, DType.I64)
            : null;
        ColumnGroups groups = indices is not null && !IsUnset(indices)
            ? module.ReadGroups(Groups, columns, perRow, scheme.GroupColumnsOf(columns))
            : ColumnGroups.Runs(scheme.GroupColumnsOf(columns));
        ScaleReader readScales = ScaleReaders.Floats(scales, scheme.RowsPerScale, perRow, groups);
        TensorView? zeros = null;
        if (!scheme.Symmetric)
        {
            zeros = scheme.Reach == ScaleReach.Tensor ? module.Get(Zero, DType.I8, DType.I32) : module.Get(Zero, DType.I32);
            ScaleReader floats = readScales;
            Func<long, int, int> zeroAt = ZeroOf(module, zeros, scheme, rows, perRow, dense);
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
            Format = $"{Format} int{bits}",
            Rows = rows,
            Columns = columns,
            Bits = bits,
            Numbers = CodeNumbers.Integer,
            GroupColumns = groups.GroupColumns,
            Order = groups.Order,
            Zero = scheme.Symmetric ? 1 << (bits - 1) : null,
            Codes = groups.Arrange(columns, dense && WordBits % bits != 0 ? CodeReaders.Stream(packed, bits) : CodeReaders.Words(packed, bits)),
            Scales = readScales,
            Parts = [packed, scales, .. zeros is null ? [] : new[] { zeros }, .. indices is null ? [] : new[] { indices }, module.Get(Shape, DType.I64, DType.I32)],
        };
    }

    private static long DenseWords(long codes, int bits) => (codes * bits + WordBits - 1) / WordBits;

    private static long PaddedWords(long codes, int bits) => (codes + WordBits / bits - 1) / (WordBits / bits);

    private static (long Rows, int Columns) SizeOf(CodedModule module)
    {
        TensorView shape = module.Get(Shape, [2], DType.I64, DType.I32);
        return module.RequireSize(Shape, shape.Integer(0), shape.Integer(1));
    }

    /// <summary>Codes lie across words, as the width of the codes says; where that fits both layouts, as another module's says.</summary>
    private bool IsDense(CodedModule module, TensorView packed, CodedScheme scheme, long rows, int columns)
    {
        long dense = DenseWords(columns, scheme.Bits), padded = PaddedWords(columns, scheme.Bits);
        if (packed.Shape.Length != 2 || packed.Shape[0] != rows || (packed.Shape[1] != dense && packed.Shape[1] != padded))
        {
            throw module.Error(Packed, $"expected the shape [{rows}, {dense}]{(padded == dense ? "" : $" or [{rows}, {padded}]")}; found {packed.DescribeShape()}");
        }
        int perWord = WordBits / scheme.Bits;
        bool alike = WordBits % scheme.Bits == 0 || (columns <= perWord && (scheme.Symmetric || rows <= perWord));
        if (alike || dense != padded)
        {
            return packed.Shape[1] == dense;
        }
        denseElsewhere ??= new Lazy<bool?>(() => FindDense(module.Source));
        return denseElsewhere.Value ?? throw module.Error(
            Packed, $"{columns} codes of {scheme.Bits} bits have {dense} words in the layout of older files as in that of newer ones, and no other module tells which it is");
    }

    /// <summary>The layout that the first module has whose width tells; a folder is written by one version of the library.</summary>
    private bool? FindDense(Checkpoint source)
    {
        foreach (string name in source.TensorNames.Where(static name => name.EndsWith("." + Packed, StringComparison.Ordinal)))
        {
            var module = new CodedModule(source, name[..^(Packed.Length + 1)]);
            if (config.SchemeOf(module.Name) is { Format: Format } scheme && WordBits % scheme.Bits != 0)
            {
                (_, int columns) = SizeOf(module);
                long words = module.Get(Packed, DType.I32).Columns, dense = DenseWords(columns, scheme.Bits);
                if (dense != PaddedWords(columns, scheme.Bits))
                {
                    return words == dense;
                }
            }
        }
        return null;
    }

    /// <summary>A tensor of groups that was never filled in.</summary>
    private static bool IsUnset(TensorView indices)
    {
        for (long i = 0; i < indices.ElementCount; i++)
        {
            if (indices.Integer(i) == -1)
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>Zero points are packed down the rows, [words, groups], with 2^(bits − 1) added as codes have it; of a whole tensor there is one, plain.</summary>
    private static Func<long, int, int> ZeroOf(CodedModule module, TensorView zeros, CodedScheme scheme, long rows, int perRow, bool dense)
    {
        int bits = scheme.Bits, perWord = WordBits / bits;
        if (scheme.Reach == ScaleReach.Tensor)
        {
            if (zeros.ElementCount != 1)
            {
                throw module.Error(Zero, $"expected one zero point; found {zeros.DescribeShape()}");
            }
            int zero = (zeros.DType == DType.I8 ? (sbyte)zeros.Byte(0) : (int)zeros.Integer(0)) + (1 << (bits - 1));
            return (_, _) => zero;
        }
        if (scheme.Reach == ScaleReach.Block)
        {
            throw module.Error(Zero, "zero points of blocks are not supported");
        }
        module.RequireShape(Zero, zeros, dense ? DenseWords(rows, bits) : PaddedWords(rows, bits), perRow);
        if (dense)
        {
            return (row, group) => (int)zeros.Field(group, perRow, row, bits);
        }
        return (row, group) => (int)(zeros.Word(row / perWord * perRow + group) >> (int)(row % perWord * bits)) & ((1 << bits) - 1);
    }
}
