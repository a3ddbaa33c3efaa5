namespace Engine.Tests.Plans.Oracle;

/// <summary>
/// The OCP format that gpt-oss stores experts in: blocks of 32 codes of 4 bits with a power of two, byte j of a block holding elements 2j (low) and 2j + 1 (high).
/// </summary>
internal static class Mxfp4
{
    private static readonly float[] Sizes = [0, 0.5f, 1, 1.5f, 2, 3, 4, 6];

    /// <summary>A number of the format with the scale 2^−4; neighbours with that scale make blocks that hold it exactly.</summary>
    public static float Draw(Random random) => Sizes[random.Next(8)] * (random.Next(2) == 0 ? 1 : -1) / 16;

    /// <summary>Codes [rows, columns / 32, 16] and scales [rows, columns / 32] of numbers [rows, columns] that the format holds exactly.</summary>
    public static (byte[] Blocks, byte[] Scales) Encode(float[] values)
    {
        List<byte> blocks = [], scales = [];
        foreach (float[] block in values.Chunk(32))
        {
            // Of the scales that hold all 32, the smallest.
            int exponent = Enumerable.Range(-20, 40).First(e => block.All(value => Array.IndexOf(Sizes, Math.Abs(value) / MathF.Pow(2, e)) >= 0));
            scales.Add((byte)(exponent + 127));
            byte[] codes = [.. block.Select(value => (byte)(Array.IndexOf(Sizes, Math.Abs(value) / MathF.Pow(2, exponent)) | (value < 0 ? 8 : 0)))];
            blocks.AddRange(codes.Chunk(2).Select(static pair => (byte)(pair[0] | pair[1] << 4)));
        }
        return ([.. blocks], [.. scales]);
    }
}
