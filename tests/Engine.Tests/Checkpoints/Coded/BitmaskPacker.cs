using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Packs as compressed-tensors' <c>sparse-24-bitmask</c> and <c>sparse-bitmask</c> do, floats or bytes of codes (formats.md §4.2).</summary>
internal static class BitmaskPacker
{
    /// <summary>Draws types and scales.</summary>
    /// <param name="random">Random numbers.</param>
    /// <param name="twoOfFour">Two of four are kept; else any.</param>
    /// <param name="isFloat">Codes are E4M3, or else signed integers; null for weights that are not quantized.</param>
    public static PackedFormat Make(Random random, bool twoOfFour, bool? isFloat)
    {
        string sparsity = twoOfFour ? "sparse-24-bitmask" : "sparse-bitmask";
        double density = random.NextDouble();
        if (isFloat is not { } float8)
        {
            string type = new[] { "F32", "F16", "BF16" }[random.Next(3)];
            return new PackedFormat(
                CompressedTensorsSettings.Of("dense", null, sparsity), (_, columns) => !twoOfFour || columns % 4 == 0, (source, rows, columns, size) =>
                {
                    bool[] mask = Mask(source, rows, columns, twoOfFour, density);
                    // Weights that are kept may be zero, of either sign.
                    float[] weights = [.. mask.Select(keep => !keep ? 0 : source.Next(8) == 0 ? -0f : Scale(source, PowerOfTwo(size)) * (source.Next(2) * 2 - 1))];
                    float[] kept = [.. weights.Where((_, i) => mask[i])];
                    return new PackedModule(Tensors(Floats("compressed", [], kept, type), mask, rows, columns, twoOfFour), weights);
                })
            {
                IsCoded = false,
            };
        }
        // A pruned weight is a code of zero: scales alone make weights of codes.
        BytePacker.ByteScales scales = BytePacker.ByteScales.Draw(random, float8) with { Symmetric = true };
        return new PackedFormat(
            CompressedTensorsSettings.Of(float8 ? "float-quantized" : "int-quantized", scales.Weights(), sparsity),
            (_, columns) => !twoOfFour || columns % 4 == 0, (source, rows, columns, size) =>
            {
                bool[] mask = Mask(source, rows, columns, twoOfFour, density);
                byte[] stored = [.. mask.Select(keep => !keep ? (byte)0 : float8 ? (byte)FiniteE4M3(source) : (byte)source.Next(256))];
                (RawTensor[] grids, float[] weights) = scales.Pack(source, rows, columns, size, stored);
                RawTensor kept = new("compressed", float8 ? "F8_E4M3" : "I8", [], [.. stored.Where((_, i) => mask[i])]);
                return new PackedModule([.. Tensors(kept, mask, rows, columns, twoOfFour), .. grids], weights);
            });
    }

    private static bool[] Mask(Random random, int rows, int columns, bool twoOfFour, double density) => twoOfFour
        ? [.. Enumerable.Range(0, rows * columns / 4).SelectMany(_ => Shuffled(random, [1, 1, 0, 0])).Select(static bit => bit == 1)]
        : [.. Enumerable.Range(0, rows * columns).Select(_ => random.NextDouble() < density)];

    private static RawTensor[] Tensors(RawTensor kept, bool[] mask, int rows, int columns, bool twoOfFour)
    {
        int width = Ceiling(columns, 8);
        var bits = new byte[rows * width];
        var offsets = new long[rows];
        for (int i = 0, count = 0; i < mask.Length; i++)
        {
            (int row, int column) = (i / columns, i % columns);
            offsets[row] = column == 0 ? count : offsets[row];
            count += mask[i] ? 1 : 0;
            bits[row * width + column / 8] |= (byte)((mask[i] ? 1 : 0) << column % 8);
        }
        RawTensor maskTensor = new("bitmask", "U8", [rows, width], bits), shape = new("shape", "I64", twoOfFour ? [2, 1] : [2], Bytes<long>([rows, columns]));
        return twoOfFour
            ? [kept with { Shape = [rows, columns / 2] }, maskTensor, shape]
            : [kept with { Shape = [mask.Count(static keep => keep)] }, maskTensor, shape, new("row_offsets", "I64", [rows], Bytes(offsets))];
    }
}
