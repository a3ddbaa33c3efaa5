using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Safetensors;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Plans;
using Engine.Tests.Checkpoints;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>Products of stored weights against ggml's integer dot products of the same weights and activations.</summary>
public sealed class ReferenceProductTests
{
    public static TheoryData<string> Cases =>
    [
        "gguf_q2_k", "gguf_q3_k", "gguf_iq4_nl", "gguf_iq4_xs", "gguf_tq2_0", "gguf_extra_tq1_0", "gguf_extra_nvfp4", "gguf_q4_k", "gguf_q6_k", "gguf_mxfp4",
    ];

    [Theory]
    [MemberData(nameof(Cases))]
    public void ProductsAreThoseOfTheReference(string name)
    {
        using var team = new ThreadTeam(2);
        using Checkpoint checkpoint = CheckpointFile.Open(FormatGoldens.PathOf(name, "model.gguf"));
        using SafetensorsFile expected = SafetensorsFile.Open(FormatGoldens.PathOf(name, "expected.safetensors"));
        foreach (JsonNode? matrix in FormatGoldens.Case(name)["matrices"]!.AsArray())
        {
            string tensor = matrix!["name"]!.GetValue<string>(), partner = matrix["act_format"]!.GetValue<string>();
            int rows = matrix["rows"]!.GetValue<int>(), columns = matrix["cols"]!.GetValue<int>();
            byte[] stored = [.. expected["act." + tensor].ToFloats().Select(static value => (byte)value)];
            float[] input = partner == "Q8_K" ? ReadQ8K(stored, columns) : ReadQ8(stored, columns), products = expected["yact." + tensor].ToFloats();
            float[] weights = expected["w." + tensor].ToFloats();
            using PackedLinear linear = PackedLinear.Load(new LinearPlan(columns, [new LinearPart(rows, new WeightRef(tensor))]), checkpoint, team);
            float[] output = MatmulData.Multiply(linear, team, input, 1);
            for (int row = 0; row < rows; row++)
            {
                // Blocks of 32 that reach ±127 keep their codes; those of a block of 256 are rounded once more.
                double tolerance = 0;
                for (int i = 0; i < columns; i += 32)
                {
                    float largest = input.AsSpan(i, 32).ToArray().Max(MathF.Abs);
                    double magnitude = weights.AsSpan(row * columns + i, 32).ToArray().Sum(static weight => (double)MathF.Abs(weight)) * largest;
                    tolerance += magnitude * (partner == "Q8_K" ? 0.5 / 127 + 1e-5 : 1e-5) + 1e-6 * largest;
                }
                Assert.True(
                    Math.Abs(output[row] - products[row]) <= tolerance, $"{tensor}, row {row}: {output[row]}, not {products[row]} ± {tolerance}");
            }
        }
    }

    /// <summary>Blocks of 32: float16 scale, signed codes.</summary>
    private static float[] ReadQ8(byte[] stored, int columns) =>
        [.. Enumerable.Range(0, columns).Select(i => (float)MemoryMarshal.Read<Half>(stored.AsSpan(i / 32 * 34)) * (sbyte)stored[i / 32 * 34 + 2 + i % 32])];

    /// <summary>Blocks of 256: float32 scale, signed codes, 16-bit sums of each 16.</summary>
    private static float[] ReadQ8K(byte[] stored, int columns) =>
        [.. Enumerable.Range(0, columns).Select(i => MemoryMarshal.Read<float>(stored.AsSpan(i / 256 * 292)) * (sbyte)stored[i / 256 * 292 + 4 + i % 256])];
}
