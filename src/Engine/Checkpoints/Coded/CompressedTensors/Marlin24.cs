using System.Collections.Immutable;

namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>
/// The format <c>marlin-24</c>: integers of 4 or 8 bits of which two of four inputs are kept, in the order in which a GPU kernel reads them (formats.md §4.3;
/// github.com/IST-DASLab/Sparse-Marlin): tiles of 16 kept inputs by 16 outputs, four of which are permuted together; <c>meta</c> says which two, in CUTLASS's order.
/// </summary>
internal static class Marlin24
{
    /// <summary>Places of the kept weights, and the scales.</summary>
    public const string Meta = "meta", Scale = "scale_packed";

    private const string Packed = "weight_packed";

    // Kept inputs, and outputs, of a tile; outputs and codes of four tiles.
    private const int Tile = 16, ChunkOutputs = 64, ChunkCodes = ChunkOutputs * Tile;

    // Inputs that a row of tiles stands for, and kept inputs and bits of each in a word of the places.
    private const int TileInputs = 2 * Tile, WordKept = 8, PlaceBits = 2;

    private static readonly ImmutableArray<int> places4 = Places([0, 2, 4, 6, 1, 3, 5, 7]);
    private static readonly ImmutableArray<int> places8 = Places([0, 2, 1, 3]);
    private static readonly ImmutableArray<int> scalePlaces = [0, 2, 4, 6, 1, 3, 5, 7];

    /// <summary>Reads a module.</summary>
    /// <exception cref="EngineException">Tensors are missing or do not fit the configuration or each other.</exception>
    public static StoredMatrix Read(CodedModule module, CodedScheme scheme)
    {
        int bits = scheme.Bits;
        if (bits is not (4 or 8) || scheme.IsFloat || !scheme.Symmetric || scheme.Reach is not (ScaleReach.Channel or ScaleReach.Group))
        {
            throw module.Error(Packed, "marlin-24 has symmetric integers of 4 or 8 bits, with scales per channel or group; the configuration says otherwise");
        }
        TensorView packed = module.Get(Packed, DType.I32), meta = module.Get(Meta, DType.I16), scales = module.Get(Scale, DType.F16, DType.BF16, DType.F32);
        if (packed.Shape.Length != 2 || scales.Shape.Length != 2)
        {
            throw module.Error(Packed, $"expected matrices; found {packed.DescribeShape()} and scales {scales.DescribeShape()}");
        }
        (long rows, int columns) = module.RequireSize(Packed, scales.Shape[1], packed.Shape[0] > int.MaxValue ? packed.Shape[0] : packed.Shape[0] * TileInputs);
        if (rows % ChunkOutputs != 0)
        {
            throw module.Error(Packed, $"expected a multiple of {ChunkOutputs} outputs; found {rows}");
        }
        module.RequireShape(Packed, packed, columns / TileInputs, rows * Tile * bits / 32);
        module.RequireShape(Meta, meta, columns / TileInputs, 2 * rows);
        module.RequireShape(Scale, scales, scheme.GroupsOf(columns), rows);
        int zero = 1 << (bits - 1), groupColumns = scheme.GroupColumnsOf(columns);
        // The writer compares groups with the number of kept inputs, and permutes the scales of smaller ones only.
        bool scalesPermuted = groupColumns < columns / 2;
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = $"marlin-24 int{bits}",
            Rows = rows,
            Columns = columns,
            Bits = bits,
            Numbers = CodeNumbers.Integer,
            GroupColumns = groupColumns,
            Zero = zero,
            Codes = (row, destination) =>
            {
                destination.Fill((byte)zero);
                ReadCodes(module, packed, meta, row, bits, destination);
            },
            Scales = (row, destination, _) =>
            {
                long place = scalesPermuted ? row / 8 * 8 + scalePlaces[(int)(row % 8)] : row;
                for (int group = 0; group < destination.Length; group++)
                {
                    destination[group] = scales.Float(group * rows + place);
                }
            },
            Parts = [packed, meta, scales],
        };
    }

    private static void ReadCodes(CodedModule module, TensorView packed, TensorView meta, long row, int bits, Span<byte> destination)
    {
        ImmutableArray<int> places = bits == 4 ? places4 : places8;
        int chunk = (int)(row / ChunkOutputs) * ChunkCodes, inChunk = (int)(row % ChunkOutputs), output = inChunk / Tile * (Tile * Tile) + inChunk % Tile;
        long rows = meta.Columns / 2;
        for (int tile = 0; tile < destination.Length / TileInputs; tile++)
        {
            ReadOnlySpan<byte> codes = packed.Row(tile);
            Span<byte> inputs = destination.Slice(tile * TileInputs, TileInputs);
            uint kept = PlacesWord(meta, rows, row, 2 * tile) | PlacesWord(meta, rows, row, 2 * tile + 1) << WordKept * PlaceBits;
            for (int k = 0; k < Tile; k += 2, kept >>= 2 * PlaceBits)
            {
                int first = (int)kept & 3, second = (int)kept >> PlaceBits & 3;
                if (first >= second)
                {
                    throw module.Error(Meta, $"expected two places in order; found {first} and {second} at row {row}, column {tile * TileInputs + 2 * k}");
                }
                inputs[2 * k + first] = Code(codes, chunk + places[output + k * Tile], bits);
                inputs[2 * k + second] = Code(codes, chunk + places[output + (k + 1) * Tile], bits);
            }
        }
    }

    private static byte Code(ReadOnlySpan<byte> codes, int index, int bits) => bits == 8 ? codes[index] : (byte)(codes[index / 2] >> index % 2 * 4 & 15);

    /// <summary>
    /// The word of places of a row's inputs from 16 · <paramref name="word"/> on. Rows are permuted within 64, the corners of every two by two words swapped, and
    /// two columns of words interleaved (PyTorch, torch/sparse/_semi_structured_conversions.py).
    /// </summary>
    private static uint PlacesWord(TensorView meta, long rows, long row, int word)
    {
        long to = row / 64 * 64 + row % 2 * 2 + row % 8 / 4 + row % 4 / 2 * 32 + row % 64 / 8 * 4;
        if (to % 2 != word % 2)
        {
            int step = word % 2 == 1 ? 1 : -1;
            to += step;
            word -= step;
        }
        long index = 2 * (word / 2 * rows * 2 + to * 2 + word % 2);
        return meta.Byte(index) | (uint)meta.Byte(index + 1) << 8;
    }

    /// <summary>Where the code of [tile, kept input, output] of a chunk is stored.</summary>
    /// <param name="interleave">The order of neighbouring codes within a word.</param>
    private static ImmutableArray<int> Places(ReadOnlySpan<int> interleave)
    {
        var order = new List<int>(ChunkCodes);
        for (int lane = 0; lane < 32; lane++)
        {
            int column = lane / 4;
            for (int step = 0; step < 4; step++)
            {
                foreach (int block in (ReadOnlySpan<int>)[0, 4])
                {
                    foreach (int input in (ReadOnlySpan<int>)[2 * (lane % 4), 2 * (lane % 4) + 1, 2 * (lane % 4) + 8, 2 * (lane % 4) + 9])
                    {
                        order.Add(Tile * input + Tile * Tile * (column / 2) + 8 * (column % 2) + block + step);
                    }
                }
            }
        }
        var places = new int[ChunkCodes];
        for (int i = 0; i < ChunkCodes; i++)
        {
            places[order[i / interleave.Length * interleave.Length + interleave[i % interleave.Length]]] = i;
        }
        return [.. places];
    }
}
