using System.Text.Json.Nodes;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Packs as compressed-tensors' <c>int-quantized</c> and <c>float-quantized</c> do (formats.md §3.2).</summary>
internal static class BytePacker
{
    private static readonly string[] floats = ["F32", "F16", "BF16"];

    /// <summary>Draws symmetry, and what a scale is for.</summary>
    public static PackedFormat Make(Random random, bool isFloat)
    {
        ByteScales scales = ByteScales.Draw(random, isFloat);
        bool naive = random.Next(3) == 0;
        return new PackedFormat(
            CompressedTensorsSettings.Of(naive ? "naive-quantized" : isFloat ? "float-quantized" : "int-quantized", scales.Weights()),
            static (_, _) => true,
            (source, rows, columns, size) =>
            {
                byte[] stored = [.. Enumerable.Range(0, rows * columns).Select(_ => isFloat ? (byte)FiniteE4M3(source) : (byte)source.Next(256))];
                (RawTensor[] grids, float[] weights) = scales.Pack(source, rows, columns, size, stored);
                return new PackedModule([new("weight", isFloat ? "F8_E4M3" : "I8", [rows, columns], stored), .. grids], weights);
            });
    }

    /// <summary>Scales, and zero points, of codes of a byte.</summary>
    /// <param name="IsFloat">Bytes are E4M3, not signed integers.</param>
    /// <param name="Symmetric">There are no zero points.</param>
    /// <param name="Strategy">What a scale is for.</param>
    /// <param name="Height">Rows of a block.</param>
    /// <param name="Width">Columns of a group or block.</param>
    internal sealed record ByteScales(bool IsFloat, bool Symmetric, string Strategy, int Height, int Width)
    {
        public static ByteScales Draw(Random random, bool isFloat) => new(
            isFloat,
            isFloat || random.Next(2) == 0,
            new[] { "tensor", "channel", "group", "block" }[random.Next(4)],
            new[] { 1, 3, 16, 128 }[random.Next(4)],
            new[] { 8, 20, 32, 128 }[random.Next(4)]);

        public JsonObject Weights() => new()
        {
            ["num_bits"] = 8,
            ["type"] = IsFloat ? "float" : "int",
            ["symmetric"] = Symmetric,
            ["strategy"] = Strategy,
            ["group_size"] = Strategy == "group" ? Width : null,
            ["block_structure"] = Strategy == "block" ? new JsonArray(Height, Width) : null,
        };

        public (RawTensor[] Tensors, float[] Weights) Pack(Random random, int rows, int columns, float size, byte[] stored)
        {
            (int height, int width) = Strategy switch
            {
                "tensor" => (rows, columns),
                "channel" => (1, columns),
                "group" => (1, Width),
                _ => (Height, Width),
            };
            (int down, int across) = (Ceiling(rows, height), Ceiling(columns, width));
            float[] scales = [.. Enumerable.Range(0, down * across).Select(_ => Scale(random, PowerOfTwo(size / (IsFloat ? 32 : 128))))];
            sbyte[] zeros = [.. scales.Select(_ => Symmetric ? (sbyte)0 : (sbyte)random.Next(-128, 128))];
            long[] shape = Strategy == "tensor" || (Strategy == "channel" && random.Next(2) == 0) ? [down] : [down, across];
            var weights = new float[rows * columns];
            for (int i = 0; i < weights.Length; i++)
            {
                int at = i / columns / height * across + i % columns / width;
                weights[i] = (float)((IsFloat ? E4M3(stored[i]) : (sbyte)stored[i] - zeros[at]) * (double)scales[at]);
            }
            RawTensor scaleTensor = Floats("weight_scale", shape, scales, floats[random.Next(3)]);
            return (Symmetric ? [scaleTensor] : [scaleTensor, new("weight_zero_point", "I8", shape, Bytes(zeros))], weights);
        }
    }
}
