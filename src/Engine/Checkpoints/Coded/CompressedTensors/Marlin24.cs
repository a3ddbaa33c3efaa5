namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>
/// The format <c>marlin-24</c>: integers of 4 or 8 bits of which two of four inputs are kept, in the order in which a GPU kernel reads them, [inputs / 32, outputs ·
/// 16 · bits / 32] words, with places in the order of CUTLASS (formats.md §4.3; IST-DASLab/Sparse-Marlin, marlin_24).
/// </summary>
internal static class Marlin24
{
    /// <summary>Places of the kept weights, and the scales.</summary>
    public const string Meta = "meta", Scale = "scale_packed";

    private const int TileInputs = 16, TileOutputs = 16, Chunk = 1024;

    private static readonly int[] order4 = [0, 2, 4, 6, 1, 3, 5, 7], order8 = [0, 2, 1, 3], scaleOrder = [0, 4, 1, 5, 2, 6, 3, 7];

    /// <summary>Reads a module.</summary>
    /// <exception cref="EngineException">Tensors are missing or do not fit each other.</exception>
    public static CodedMatrix Read(CodedModule module, CodedScheme scheme)
    {
        int bits = scheme.Bits;
        if (bits is not (4 or 8) || scheme.IsFloat || !scheme.Symmetric || scheme.Reach is not (ScaleReach.Channel or ScaleReach.Group))
        {
            throw module.Error("weight_packed", "marlin-24 has symmetric integers of 4 or 8 bits, with scales per channel or group; the configuration says otherwise");
        }
        TensorView packed = module.Get("weight_packed", DType.I32), meta = module.Get(Meta, DType.I16), scales = module.Get(Scale, DType.F16, DType.BF16, DType.F32);
        if (packed.Shape.Length != 2 || scales.Shape.Length != 2)
        {
            throw module.Error("weight_packed", $"expected matrices; found {packed.DescribeShape()} and scales {scales.DescribeShape()}");
        }
        (long rows, int columns) = module.RequireSize("weight_packed", scales.Shape[1], packed.Shape[0] * TileInputs * 2);
        if (rows % 64 != 0 || columns % 32 != 0)
        {
            throw module.Error("weight_packed", $"expected a multiple of 64 outputs and of 32 inputs; found {rows} and {columns}");
        }
        module.RequireShape("weight_packed", packed, columns / 32, rows * TileInputs * bits / 32);
        module.RequireShape(Meta, meta, columns / 32, 2 * rows);
        bool grouped = scheme.Reach == ScaleReach.Group && scheme.GroupSize < columns / 2;
        int groupColumns = grouped ? scheme.GroupSize : columns, groups = (columns + groupColumns - 1) / groupColumns;
        module.RequireShape(Scale, scales, groups, rows);
        int[] source = Positions(bits);
        int half = 1 << (bits - 1);
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = $"marlin-24 int{bits}",
            Rows = rows,
            Columns = columns,
            Bits = bits,
            Numbers = CodeNumbers.Integer,
            GroupColumns = groupColumns,
            Zero = half,
            Codes = (row, destination) =>
            {
                destination.Fill((byte)half);
                long rowWords = packed.Columns;
                for (int kept = 0; kept < columns / 2; kept++)
                {
                    // [inputs / 16, outputs / 16, 16, 16] of a row of tiles, in chunks of 1024 that are permuted.
                    long flat = row / TileOutputs * (TileInputs * TileOutputs) + kept % TileInputs * TileOutputs + row % TileOutputs;
                    long stored = flat / Chunk * Chunk + source[flat % Chunk];
                    uint code = packed.Field(kept / TileInputs * rowWords, 1, stored, bits);
                    int place = Place(meta, row, kept, rows);
                    destination[kept / 2 * 4 + place] = (byte)code;
                }
            },
            Scales = (row, destination, _) =>
            {
                for (int group = 0; group < destination.Length; group++)
                {
                    // Within 64 outputs, those of a group mode are interleaved eight by eight.
                    long stored = grouped ? row / 64 * 64 + StoredScale((int)(row % 64)) : row;
                    destination[group] = scales.Float(group * rows + stored);
                }
            },
            Parts = [packed, meta, scales],
        };
    }

    /// <summary>Where in a chunk the element that belongs at each position is stored.</summary>
    private static int[] Positions(int bits)
    {
        var permutation = new List<int>(Chunk);
        for (int i = 0; i < 32; i++)
        {
            var ones = new List<int>();
            int column = i / 4;
            for (int block = 0; block < 2; block++)
            {
                foreach (int row in (ReadOnlySpan<int>)[2 * (i % 4), 2 * (i % 4) + 1, 2 * (i % 4 + 4), 2 * (i % 4 + 4) + 1])
                {
                    ones.Add(16 * row + 256 * (column / 2) + 8 * (column % 2) + 4 * block);
                }
            }
            for (int j = 0; j < 4; j++)
            {
                permutation.AddRange(ones.Select(one => one + j));
            }
        }
        int[] order = bits == 4 ? order4 : order8;
        var stored = new int[Chunk];
        for (int i = 0; i < Chunk; i++)
        {
            // Element i of a chunk of the file is, before its eight (or four) were interleaved, element order[i] of them.
            stored[permutation[i / order.Length * order.Length + order[i % order.Length]]] = i;
        }
        return stored;
    }

    /// <summary>Where among 64 scales that of an output is stored.</summary>
    private static int StoredScale(int output) => output / 8 * 8 + Array.IndexOf(scaleOrder, output % 8);

    /// <summary>
    /// The place, 0 … 3, of a kept weight in its group of four: 2 bits of a word for 8 kept ones, words lying as sparse tensor cores load them (PyTorch,
    /// torch/sparse/_semi_structured_conversions.py).
    /// </summary>
    private static int Place(TensorView meta, long row, int kept, long rows)
    {
        long target = row / 64 * 64 + row % 2 * 2 + row % 8 / 4 + row % 32 % 4 / 2 * 32 + row % 64 / 8 * 4;
        int column = kept / 8, shift = target % 2 == 0 && column % 2 == 1 ? 1 : target % 2 == 1 && column % 2 == 0 ? -1 : 0;
        target += shift;
        column -= shift;
        long word = column / 2 * rows * 2 + target * 2 + column % 2;
        return meta.Byte(2 * word + kept % 8 / 4) >> (2 * (kept % 4)) & 3;
    }
}
