using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Checkpoints.Coded;
using Engine.Tests.Cpu;
using Engine.Tests.Cpu.Matmul;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Checkpoints;

/// <summary>
/// GGUF's NVFP4 with a factor for the matrix beside it, <c>X.scale</c> (llama.cpp: src/llama-model.cpp, and build_lora_mm in src/llama-graph.cpp, which multiplies the
/// product by it; of experts, each has its own).
/// </summary>
public sealed class FactoredNvfp4Tests
{
    private const string Up = "blk.0.ffn_up.weight", Experts = "blk.0.ffn_up_exps.weight";

    [Fact]
    public void Weights_are_codes_times_scales_times_the_factor()
    {
        Random random = Seed.Fresh();
        for (int repetition = 0; repetition < 10; repetition++)
        {
            int rows = 1 + random.Next(20), columns = 64 * (1 + random.Next(4)), experts = 1 + random.Next(4);
            MemoryCheckpoint file = Empty();
            float[] up = Add(file, Up, [rows, columns], random), stack = Add(file, Experts, [experts, rows, columns], random);
            file.Add("blk.0.ffn_up.input_scale", [1], [3f]);
            file.Add("blk.0.ffn_up_exps.input_scale", [experts], new float[experts]);
            using var read = new GgufVocabulary(file);
            Assert.Equal(["model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.experts.up_proj.weight"], read.TensorNames);
            TensorView matrix = read["model.layers.0.mlp.up_proj.weight"], several = read["model.layers.0.mlp.experts.up_proj.weight"];
            Assert.Equal([rows, columns], matrix.Shape);
            Assert.Equal([experts, rows, columns], several.Shape);
            Assert.Equal(up, matrix.ToFloats());
            Assert.Equal(stack, several.ToFloats());
            Assert.Equal("NVFP4", matrix.FormatName());
            Assert.Equal(up, read[Up].ToFloats());
            matrix.RequireFinite();
        }
    }

    /// <summary>An expert is a run of rows of the stack, or a slice of it.</summary>
    [Fact]
    public void Experts_are_multiplied_each_with_its_own()
    {
        const int Rows = 37, Columns = 192, Count = 3, Tokens = 4;
        Random random = Seed.Fresh();
        MemoryCheckpoint file = Empty();
        float[] weights = Add(file, Experts, [Count, Rows, Columns], random), input = MatmulData.RandomInput(Columns * Tokens, random);
        using var read = new GgufVocabulary(file);
        using var team = new ThreadTeam(2);
        const string Name = "model.layers.0.mlp.experts.up_proj.weight";
        for (int expert = 0; expert < Count; expert++)
        {
            using PackedLinear run = Load(new WeightRef(Name, expert * Rows)), slice = Load(new WeightRef(Name) { Slice = expert });
            float[] output = MatmulData.Multiply(run, team, input, Tokens);
            MatmulData.AssertBits(output, MatmulData.Multiply(slice, team, input, Tokens), $"expert {expert}");
            for (int i = 0; i < output.Length; i++)
            {
                ReadOnlySpan<float> x = input.AsSpan(i / Rows * Columns, Columns), row = weights.AsSpan((expert * Rows + i % Rows) * Columns, Columns);
                double sum = 0, magnitude = 0, largest = 0;
                for (int column = 0; column < Columns; column++)
                {
                    sum += (double)x[column] * row[column];
                    magnitude += Math.Abs(row[column]);
                    largest = Math.Max(largest, Math.Abs(x[column]));
                }
                // Activations are rounded to 8 bits: half a step on every weight; float32 arithmetic is far below the rest.
                Assert.InRange(output[i], sum - magnitude * largest * 0.504 / 127, sum + magnitude * largest * 0.504 / 127);
            }
        }
        Assert.Equal(Name, Assert.Throws<EngineException>(() => Load(new WeightRef(Name, 1) { Slice = 0 })).Item);
        Assert.Equal(Name, Assert.Throws<EngineException>(() => Load(new WeightRef(Name) { Slice = Count })).Item);

        PackedLinear Load(WeightRef weight) => PackedLinear.Load(new LinearPlan(Columns, [new LinearPart(Rows, weight)]), read, team);
    }

    /// <summary>A mixture of experts in NVFP4 gives the logits of the same weights in F32: the reference decodes both to the same bits.</summary>
    [Fact]
    public void A_model_gives_the_logits_of_its_weights()
    {
        Random random = Seed.Fresh();
        TinyModel model = MoeModels.Make("qwen3_moe", random.Next(), """{"hidden_size": 64, "moe_intermediate_size": 64, "head_dim": 16}""");
        using var folder = new TemporaryFolder();
        using MemoryCheckpoint source = model.ToCheckpoint();
        GgufConverter.Convert(source, folder.File("m.gguf"), QuantizationRecipe.Named("F32"));
        using GgufFile file = GgufFile.Open(folder.File("m.gguf"));
        string[] quantized = [.. file.TensorNames.Where(name => file[name].Shape is { Length: > 1 } && !name.Contains("embd", StringComparison.Ordinal))];
        Assert.Contains("output.weight", quantized);
        Assert.Contains("blk.1.ffn_down_exps.weight", quantized);
        MemoryCheckpoint coded = GgufCopy.Of(file, keep: name => !quantized.Contains(name)), plain = GgufCopy.Of(file, keep: name => !quantized.Contains(name));
        foreach (string name in quantized)
        {
            plain.Add(name, file[name].Shape, Add(coded, name, file[name].Shape, random, 1f / 64));
        }
        int[] tokens = model.Tokens(12);
        using var expected = new ModelHarness(new GgufVocabulary(plain), new ReferenceBackend());
        using var actual = new ModelHarness(new GgufVocabulary(coded), new ReferenceBackend());
        Assert.Equal(expected.Run(tokens, 12), actual.Run(tokens, 5));
        using var cpu = new ModelHarness(new GgufVocabulary(coded), new CpuBackend(new CpuOptions { Threads = 2 }));
        Assert.All(cpu.Run(tokens, 5), static logits => Assert.All(logits, static value => Assert.True(float.IsFinite(value))));
    }

    [Theory]
    [InlineData(Up, new long[] { 2 }, 1f, DType.F32)]
    [InlineData(Up, new long[] { 1, 1 }, 1f, DType.F32)]
    [InlineData(Up, new long[] { 1 }, 0f, DType.F32)]
    [InlineData(Up, new long[] { 1 }, float.NaN, DType.F32)]
    [InlineData(Up, new long[] { 1 }, float.NegativeInfinity, DType.F32)]
    [InlineData(Up, new long[] { 1 }, 1f, DType.F16)]
    [InlineData(Experts, new long[] { 1 }, 1f, DType.F32)]
    [InlineData(Experts, new long[] { 4 }, 1f, DType.F32)]
    [InlineData(Experts, new long[] { 3 }, float.PositiveInfinity, DType.F32)]
    public void A_factor_that_does_not_fit_is_refused(string weight, long[] shape, float value, DType type)
    {
        MemoryCheckpoint file = Empty();
        file.Add(weight, DType.NVFP4, weight == Up ? [2, 64] : [3, 2, 64], new byte[(weight == Up ? 2 : 6) * 36]);
        string factor = weight.Replace(".weight", ".scale", StringComparison.Ordinal);
        int count = (int)shape.Aggregate(1L, static (a, b) => a * b);
        file.Add(factor, type, shape, type == DType.F32 ? RawValues.Bytes(Enumerable.Repeat(value, count)) : RawValues.Bytes(Enumerable.Repeat((Half)value, count)));
        Assert.Equal(factor, Assert.Throws<EngineException>(() => new GgufVocabulary(file)).Item);
    }

    /// <summary>Such a tensor means something else beside other types, or alone: it is there, and whoever makes a plan has no use for it.</summary>
    [Fact]
    public void A_factor_beside_another_type_is_no_part_of_it()
    {
        MemoryCheckpoint file = Empty();
        file.Add(Up, DType.Q8_0, [2, 32], new byte[2 * 34]);
        file.Add("blk.0.ffn_up.scale", [1], [2f]);
        file.Add("output.scale", [1], [2f]);
        using var read = new GgufVocabulary(file);
        Assert.Equal(["model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.scale", "output.scale"], read.TensorNames);
        Assert.Equal(DType.Q8_0, read[Up].DType);
    }

    private static MemoryCheckpoint Empty()
    {
        var file = new MemoryCheckpoint();
        file.AddMetadata("general.architecture", "qwen3moe");
        return file;
    }

    /// <summary>
    /// Adds random codes and scales, and a factor for each matrix; the weights. A block is 4 scales, then for each of 4 groups 8 bytes, byte j of which has weight j
    /// low and weight j + 8 high (ggml-common.h, block_nvfp4).
    /// </summary>
    private static float[] Add(MemoryCheckpoint file, string name, long[] shape, Random random, float size = 1)
    {
        int columns = (int)shape[^1], count = (int)shape.Aggregate(1L, static (a, b) => a * b), matrices = shape.Length == 3 ? (int)shape[0] : 1;
        float[] factors = [.. Enumerable.Range(0, matrices).Select(_ => size * (random.NextSingle() + 0.5f) / 32)], weights = new float[count];
        var bytes = new byte[count / 64 * 36];
        random.NextBytes(bytes);
        for (int i = 0; i < bytes.Length; i += 36)
        {
            for (int scale = 0; scale < 4; scale++)
            {
                bytes[i + scale] = (byte)(random.Next(12) == 0 ? 0x7F : 0x30 + random.Next(0x18)); // 0x7F stands for 0.
            }
        }
        for (int i = 0; i < count; i++)
        {
            int block = i / 64 * 36, group = i % 64 / 16, place = i % 16, both = bytes[block + 4 + 8 * group + place % 8];
            double scale = bytes[block + group] == 0x7F ? 0 : RawValues.E4M3(bytes[block + group]);
            float factored = (float)scale * factors[i / (count / matrices)];
            weights[i] = (float)(RawValues.E2M1(place < 8 ? both & 15 : both >> 4) * factored);
        }
        file.Add(name, DType.NVFP4, shape, bytes);
        file.Add(name.Replace(".weight", ".scale", StringComparison.Ordinal), [matrices], factors);
        return weights;
    }
}
