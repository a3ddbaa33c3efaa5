using System.Text.Json.Nodes;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Packs as compressed-tensors' <c>marlin-24</c> does, step by step as Sparse-Marlin's packing and CUTLASS's order of places are written (formats.md §4.3).</summary>
internal static class Marlin24Packer
{
    private const int Tile = 16, Chunk = 1024;

    /// <summary>Draws what a scale is for.</summary>
    public static PackedFormat Make(Random random, int bits)
    {
        bool grouped = random.Next(2) == 0;
        int groupSize = new[] { 32, 128 }[random.Next(2)];
        var config = CompressedTensorsSettings.Of("marlin-24", new JsonObject
        {
            ["num_bits"] = bits,
            ["type"] = "int",
            ["symmetric"] = true,
            ["strategy"] = grouped ? "group" : "channel",
            ["group_size"] = grouped ? groupSize : null,
        }, "dense");
        return new PackedFormat(config, static (rows, columns) => rows % 64 == 0 && columns % 32 == 0, (source, rows, columns, size) =>
            Pack(source, rows, columns, size, bits, grouped ? groupSize : columns));
    }

    private static PackedModule Pack(Random random, int rows, int columns, float size, int bits, int groupSize)
    {
        int half = 1 << (bits - 1), groups = Ceiling(columns, groupSize), kept = columns / 2;
        // [rows, columns / 4] the two columns of each four that are kept, and [rows, columns / 2] their codes.
        int[][] pairs = [.. Enumerable.Range(0, rows * columns / 4).Select(_ => Shuffled(random, [0, 1, 2, 3])[..2].Order().ToArray())];
        int[] codes = Codes(random, rows * kept, 1 << bits);
        float[] scales = [.. Enumerable.Range(0, rows * groups).Select(_ => Scale(random, PowerOfTwo(size / half)))];
        var weights = new float[rows * columns];
        for (int i = 0; i < codes.Length; i++)
        {
            int row = i / kept, column = i % kept / 2 * 4 + pairs[i / 2][i % 2];
            weights[row * columns + column] = (float)((codes[i] - half) * (double)scales[row * groups + column / groupSize]);
        }
        // Tiles of [16 kept columns, 16 rows], a row of tiles after the other.
        List<int> tiled = [];
        for (int down = 0; down < kept; down += Tile)
        {
            for (int across = 0; across < rows; across += Tile)
            {
                for (int k = down; k < down + Tile; k++)
                {
                    tiled.AddRange(Enumerable.Range(across, Tile).Select(row => codes[row * kept + k]));
                }
            }
        }
        int[] order = Order(bits);
        int[] permuted = [.. tiled.Chunk(Chunk).SelectMany(chunk => order.Select(from => chunk[from]))];
        // Scales by group, and within eight rows in another order where groups are smaller than half a row.
        int[] eight = groupSize < kept ? [0, 4, 1, 5, 2, 6, 3, 7] : [0, 1, 2, 3, 4, 5, 6, 7];
        float[] scaleRows = [.. Enumerable.Range(0, groups * rows).Select(i => scales[(i % rows / 8 * 8 + eight[i % 8]) * groups + i / rows])];
        return new PackedModule(
        [
            Words("weight_packed", [kept / Tile, rows * Tile * bits / 32], Stream(permuted, bits)),
            Floats("scale_packed", [groups, rows], scaleRows, "F16"),
            new("meta", "I16", [columns / 32, 2 * rows], Bytes(Places(pairs, rows, columns))),
        ], weights);
    }

    /// <summary>Which code of a chunk is stored at each place.</summary>
    private static int[] Order(int bits)
    {
        List<int> lanes = [];
        for (int i = 0; i < 32; i++)
        {
            List<int> one = [];
            foreach (int block in new[] { 0, 1 })
            {
                foreach (int row in new[] { 2 * (i % 4), 2 * (i % 4) + 1, 2 * (i % 4 + 4), 2 * (i % 4 + 4) + 1 })
                {
                    one.Add(16 * row + 256 * (i / 4 / 2) + 8 * (i / 4 % 2) + 4 * block);
                }
            }
            lanes.AddRange(Enumerable.Range(0, 4).SelectMany(step => one.Select(place => place + step)));
        }
        int[] interleave = bits == 4 ? [0, 2, 4, 6, 1, 3, 5, 7] : [0, 2, 1, 3];
        return [.. lanes.Chunk(interleave.Length).SelectMany(word => interleave.Select(from => word[from]))];
    }

    /// <summary>Words of 16 columns, [rows, columns / 16], scattered as PyTorch's <c>_calculate_meta_reordering_scatter_offsets</c> says.</summary>
    private static ushort[] Places(int[][] pairs, int rows, int columns)
    {
        int wide = columns / 16;
        var stored = new ushort[rows * wide];
        for (int row = 0; row < rows; row++)
        {
            for (int column = 0; column < wide; column++)
            {
                int word = 0;
                for (int four = 0; four < 4; four++)
                {
                    int[] pair = pairs[row * (columns / 4) + 4 * column + four];
                    word |= (pair[0] | pair[1] << 2) << 4 * four;
                }
                int toRow = row / 64 * 64 + row % 2 * 2 + row % 8 / 4 + row % 32 % 4 / 2 * 32 + row % 64 / 8 * 4, toColumn = column;
                bool topRight = toRow % 2 == 0 && column % 2 == 1, bottomLeft = toRow % 2 == 1 && column % 2 == 0;
                toRow += topRight ? 1 : bottomLeft ? -1 : 0;
                toColumn -= topRight ? 1 : bottomLeft ? -1 : 0;
                stored[toColumn / 2 * rows * 2 + toRow * 2 + toColumn % 2] = (ushort)word;
            }
        }
        return stored;
    }
}
