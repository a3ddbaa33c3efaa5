using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Plans;
using static Engine.Tests.Checkpoints.Coded.RawValues;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Quantized folders of pruned models: two of every four weights are zero by value, whatever the codes and zero points of that are, and are left out.</summary>
public sealed class SparseFolderTests
{
    private const int Rows = 40, Columns = 128, Group = 32, Groups = Columns / Group;
    private const string Module = "model.layers.0.mlp.up_proj";

    [Theory]
    [InlineData("gptq", 4, "int4")]
    [InlineData("gptq", 8, "int8")]
    [InlineData("awq", 4, "int4")]
    [InlineData("pack-quantized asymmetric", 4, "int4")]
    [InlineData("nvfp4", 4, "fp4")]
    [InlineData("mxfp4", 4, "fp4")]
    public void Two_of_four_are_held(string format, int bits, string form)
    {
        Random random = Seed.Fresh();
        int[] codes = Codes(random, Rows * Columns, 1 << bits);
        bool floats = form == "fp4";
        for (int first = 0; first < codes.Length; first += 4)
        {
            foreach (int place in Shuffled(random, [0, 1, 2, 3]).Take(2))
            {
                codes[first + place] = !floats ? 1 << (bits - 1) : random.Next(2) * 8; // The zero point; 0 and −0.
            }
        }
        Check(codes, sparse: true);
        int group = random.Next(codes.Length / 4) * 4;
        for (int place = 0; place < 3; place++)
        {
            codes[group + place] = 1;
        }
        Check(codes, sparse: false);

        void Check(int[] stored, bool sparse)
        {
            using var folder = new TemporaryFolder();
            (JsonObject config, RawTensor[] tensors) = Pack(format, bits, stored, random);
            PackedFolder.Write(folder, new JsonObject { ["quantization_config"] = config }, [.. tensors.Select(static tensor => tensor with { Name = $"{Module}.{tensor.Name}" })]);
            using Checkpoint checkpoint = CheckpointFile.Open(folder.Path);
            TensorView weight = checkpoint[Module + ".weight"];
            string held = MatrixLoader.FormOf(weight, checkpoint)!;
            Assert.StartsWith(form, held, StringComparison.Ordinal);
            Assert.Equal(sparse, held.EndsWith("2:4", StringComparison.Ordinal));
            using var team = new ThreadTeam(1);
            using PackedLinear linear = PackedLinear.Load(new LinearPlan(Columns, [new LinearPart(Rows, new WeightRef(weight.Name))]), checkpoint, team);
            float[] expected = new float[Columns], found = new float[Columns];
            for (int row = 0; row < Rows; row++)
            {
                weight.DecodeRow(row, expected);
                linear.DecodeRow(row, found);
                Assert.All(expected.Zip(found), pair => Assert.Equal(pair.First, pair.Second, Math.Abs(pair.First) * 1e-6f)); // Scales are products of two, of NVFP4.
            }
        }
    }

    /// <summary>The tensors of a module with codes [rows, columns] and a zero point of half the range.</summary>
    private static (JsonObject Config, RawTensor[] Tensors) Pack(string format, int bits, int[] codes, Random random)
    {
        int zero = 1 << (bits - 1);
        float[] scales = [.. Enumerable.Range(0, Groups * Rows).Select(_ => Scale(random, 1f / 64))];
        uint[][] streams = [.. codes.Chunk(Columns).Select(row => Stream(row, bits))];
        uint zeros = Stream([.. Enumerable.Repeat(zero, 32 / bits)], bits)[0], ones = Stream([.. Enumerable.Repeat(1, 32 / bits)], bits)[0];
        byte[] nibbles = [.. codes.Chunk(2).Select(static pair => (byte)(pair[0] | pair[1] << 4))];
        switch (format)
        {
            case "gptq":
                bool version2 = random.Next(2) == 0;
                return (new JsonObject
                {
                    ["quant_method"] = "gptq",
                    ["bits"] = bits,
                    ["group_size"] = Group,
                    ["sym"] = true,
                    ["desc_act"] = false,
                    ["checkpoint_format"] = version2 ? "gptq_v2" : "gptq",
                },
                [
                    Words("qweight", [streams[0].Length, Rows], Enumerable.Range(0, streams[0].Length).SelectMany(word => streams.Select(stream => stream[word]))),
                    Words("qzeros", [Groups, Rows * bits / 32], Enumerable.Repeat(version2 ? zeros : zeros - ones, Groups * Rows * bits / 32)),
                    Floats("scales", [Groups, Rows], scales, "F16"),
                ]);
            case "awq":
                int[] order = [0, 2, 4, 6, 1, 3, 5, 7];
                IEnumerable<uint> words = Enumerable.Range(0, Columns).SelectMany(column => Enumerable.Range(0, Rows / 8)
                    .Select(eight => Stream([.. order.Select(output => codes[(eight * 8 + output) * Columns + column])], 4)[0]));
                return (new JsonObject { ["quant_method"] = "awq", ["bits"] = 4, ["group_size"] = Group, ["version"] = "gemm" },
                [
                    Words("qweight", [Columns, Rows / 8], words), Words("qzeros", [Groups, Rows / 8], Enumerable.Repeat(zeros, Groups * Rows / 8)),
                    Floats("scales", [Groups, Rows], scales, "F16"),
                ]);
            case "nvfp4":
                return (SmallFloats(format, 16),
                [
                    new("weight_packed", "U8", [Rows, Columns / 2], nibbles),
                    new("weight_scale", "F8_E4M3", [Rows, Columns / 16], [.. Codes(random, Rows * Columns / 16, 0x40).Select(static code => (byte)(0x20 + code))]),
                    Floats("weight_global_scale", [1], [Scale(random, 64)], "F32"),
                ]);
            case "mxfp4":
                return (SmallFloats(format, 32),
                [
                    new("weight_packed", "U8", [Rows, Columns / 2], nibbles),
                    new("weight_scale", "U8", [Rows, Groups], [.. Codes(random, Rows * Groups, 8).Select(static code => (byte)(118 + code))]),
                ]);
            default:
                return (CompressedTensorsSettings.Of("pack-quantized", new JsonObject
                {
                    ["num_bits"] = bits,
                    ["type"] = "int",
                    ["symmetric"] = false,
                    ["strategy"] = "group",
                    ["group_size"] = Group,
                }),
                [
                    Words("weight_packed", [Rows, streams[0].Length], streams.SelectMany(static stream => stream)), Floats("weight_scale", [Rows, Groups], scales, "BF16"),
                    Words("weight_zero_point", [Rows * bits / 32, Groups], Enumerable.Repeat(zeros, Rows * bits / 32 * Groups)),
                    new("weight_shape", "I64", [2], Bytes<long>([Rows, Columns])),
                ]);
        }
    }

    private static JsonObject SmallFloats(string format, int group) => CompressedTensorsSettings.Of(format + "-pack-quantized", new JsonObject
    {
        ["num_bits"] = 4,
        ["type"] = "float",
        ["symmetric"] = true,
        ["strategy"] = group == 16 ? "tensor_group" : "group",
        ["group_size"] = group,
    });
}
