using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;
using Engine.Transforms.Quantization;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>Matrices whose codes and scales are stored apart, in whole models and where they are refused.</summary>
public sealed class CodedLoadingTests
{
    // Integers with orders, groups that end within a row, floats, and what is decoded.
    private static readonly CodedCase[] kinds = [.. new[] { 2, 1, 15, 12, 16, 19, 24, 28, 31 }.Select(static i => CodedData.Cases[i])];

    [Theory]
    [InlineData(float.NaN)]
    [InlineData(float.NegativeInfinity)]
    public void A_scale_that_is_not_finite_is_refused_by_tensor_and_row(float scale)
    {
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        foreach (CodedCase kind in CodedData.Cases)
        {
            TestCodedMatrix matrix = CodedData.Make(kind, 20, 256, random);
            matrix.Scales[17 * matrix.Groups + matrix.Groups - 1] = scale;
            EngineException exception = Assert.Throws<EngineException>(() => CodedData.Load(team, matrix));
            Assert.Equal("w", exception.Item);
            Assert.Contains("row 17", exception.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_code_that_stands_for_no_number_is_refused()
    {
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        foreach (CodedCase kind in CodedData.Cases.Where(static kind => kind.Numbers is CodeNumbers.E4M3 or CodeNumbers.E5M2))
        {
            TestCodedMatrix matrix = CodedData.Make(kind, 20, 256, random);
            matrix.Codes[17 * 256 + 100] = 0xFF;
            EngineException exception = Assert.Throws<EngineException>(() => CodedData.Load(team, matrix));
            Assert.Contains("row 17, column 100", exception.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void An_order_that_is_no_permutation_and_a_transposed_matrix_are_refused()
    {
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(1);
        foreach (Func<int, int> change in new Func<int, int>[] { static i => i % 63, static i => i + 1, static i => i - 1 })
        {
            TestCodedMatrix matrix = CodedData.Make(CodedData.Cases[0], 5, 64, random, "w", [.. Enumerable.Range(0, 64).Select(change)]);
            Assert.Contains("order", Assert.Throws<EngineException>(() => CodedData.Load(team, matrix)).Message, StringComparison.Ordinal);
        }
        TestCodedMatrix few = CodedData.Make(CodedData.Cases[0], 5, 64, random, "w", [.. Enumerable.Range(0, 63)]);
        Assert.Contains("order", Assert.Throws<EngineException>(() => CodedData.Load(team, few)).Message, StringComparison.Ordinal);
        using var checkpoint = new TestCodedCheckpoint([CodedData.Make(CodedData.Cases[0], 64, 64, random)]);
        var transposed = new LinearPlan(64, [new LinearPart(64, new WeightRef("w", Transposed: true))]);
        Assert.Equal("w", Assert.Throws<EngineException>(() => PackedLinear.Load(transposed, checkpoint, team)).Item);
        var wide = new LinearPlan(65, [new LinearPart(64, new WeightRef("w"))]);
        Assert.Equal("w", Assert.Throws<EngineException>(() => PackedLinear.Load(wide, checkpoint, team)).Item);
    }

    /// <summary>Every projection of a small model, its embedding and its head in one kind after another; the reference decodes them.</summary>
    [Theory]
    [InlineData("llama tied")]
    [InlineData("qwen2")]
    public void Whole_models_agree_with_the_reference(string name)
    {
        Random random = Seed.Fresh();
        foreach (CodedCase kind in kinds)
        {
            TinyModel model = TinyModels.Make(name, random.Next());
            int[] tokens = model.Tokens(12);
            TestCodedMatrix[] matrices = Matrices(model, kind, random);
            using var expected = new ModelHarness(new TestCodedCheckpoint(matrices, model.ToCheckpoint()), new ReferenceBackend());
            using var actual = new ModelHarness(new TestCodedCheckpoint(matrices, model.ToCheckpoint()), new CpuBackend(new CpuOptions { Threads = 2 }));
            float[][] from = expected.Run(tokens, 12), to = actual.Run(tokens, 5);
            bool exact = matrices.All(static matrix => matrix.Numbers is CodeNumbers.E4M3 or CodeNumbers.Table);
            // Small random models amplify the rounding of activations to 8 bits; weights of another row or column would leave logits that have nothing in common,
            // at an angle whose cosine is 0.
            double size = Math.Sqrt(from.Average(static logits => logits.Average(static value => (double)value * value)));
            double error = Math.Sqrt(from.Zip(to, static (a, b) => a.Zip(b, static (x, y) => Math.Pow(x - y, 2)).Average()).Average());
            double product = from.Zip(to, static (a, b) => a.Zip(b, static (x, y) => (double)x * y).Average()).Average();
            double other = Math.Sqrt(to.Average(static logits => logits.Average(static value => (double)value * value)));
            Assert.True(exact ? error <= 1e-4 * size : product >= 0.7 * size * other, $"{name}, {kind}: {error} of {size}, {product} of {size * other}");
        }
    }

    /// <summary>Slots of parts with orders of their own, gathered rows, and down projections with others.</summary>
    [Fact]
    public void Experts_agree_with_the_reference_and_have_the_same_bits_alone()
    {
        const int Hidden = 256, Rows = 21;
        Random random = Seed.Fresh();
        foreach (CodedCase kind in kinds)
        {
            ExpertsPlan plan = ExpertTests.Plan(random);
            var router = new MemoryCheckpoint();
            router.Add("router", [plan.Router.Logits.Outputs, Hidden], TestRows.Normal(random, plan.Router.Logits.Outputs * Hidden, 1.0 / 16));
            (string Name, int Rows, int Columns)[] shapes = [("in", 1100, Hidden), ("down64", Hidden, 64), ("down256", Hidden, 256), ("down512", Hidden, 512)];
            TestCodedMatrix[] matrices = [.. shapes.Select(shape => CodedData.Make(kind, shape.Rows, shape.Columns, random, shape.Name).Normalized())];
            using var checkpoint = new TestCodedCheckpoint(matrices, router);
            using var reference = new ReferenceBackend();
            using var cpu = new CpuBackend(new CpuOptions { Threads = 2 });
            float[] input = TestRows.Normal(random, Rows * Hidden);
            float[] expected = ExpertTests.Run(reference, plan, checkpoint, input).Output, actual = ExpertTests.Run(cpu, plan, checkpoint, input).Output;
            double size = Math.Sqrt(expected.Average(static value => (double)value * value));
            double error = Math.Sqrt(expected.Zip(actual, static (a, b) => Math.Pow(a - b, 2)).Average());
            Assert.True(error <= 0.03 * size, $"{kind}: {error} of {size}");
            float[] alone = [.. Enumerable.Range(0, Rows).SelectMany(row =>
                ExpertTests.Run(cpu, plan, checkpoint, input[(row * Hidden)..((row + 1) * Hidden)], row).Output)];
            TestRows.SameBits(alone, actual, kind.ToString());
        }
    }

    /// <summary>Files made by the formats' own writers, multiplied, against the decoded weights that come with them. All stay codes.</summary>
    [Fact]
    public void Goldens_of_quantized_folders_are_multiplied_as_codes()
    {
        const int Tokens = 3;
        Random random = Seed.Fresh();
        using var team = new ThreadTeam(2);
        int matrices = 0;
        foreach (string folder in Directory.GetDirectories(SharedFiles.Require("golden/formats")).Where(static folder => File.Exists(Path.Combine(folder, "config.json"))))
        {
            using Checkpoint checkpoint = CheckpointFile.Open(folder);
            string[] coded = [.. checkpoint.TensorNames.Where(name => checkpoint[name].Coded is not null)];
            if (coded.Length == 0)
            {
                continue;
            }
            using Checkpoint decoded = CheckpointFile.Open(Path.Combine(folder, "expected.safetensors"));
            foreach (string name in coded)
            {
                CodedMatrix matrix = checkpoint[name].Coded!;
                float[] weights = decoded["w." + name].ToFloats(), input = TestRows.Normal(random, Tokens * matrix.Columns);
                int rows = (int)matrix.Rows, columns = matrix.Columns;
                using PackedLinear linear = PackedLinear.Load(new LinearPlan(columns, [new LinearPart(rows, new WeightRef(name))]), checkpoint, team);
                float[] output = MatmulData.Multiply(linear, team, input, Tokens);
                Assert.InRange(linear.Bytes, 1, (rows + 15) / 16 * 16L * columns * sizeof(float) / 2);
                TestContext.Current.TestOutputHelper?.WriteLine(
                    $"{Path.GetFileName(folder)} {name} {matrix.Format} [{rows}, {columns}] group {matrix.GroupColumns}: {linear.Bytes * 8.0 / weights.Length} bits, {linear.Reads}");
                for (int i = 0; i < output.Length; i++)
                {
                    int token = i / rows, row = i % rows;
                    double sum = 0, magnitude = 0, largest = input.AsSpan(token * columns, columns).ToArray().Max(Math.Abs);
                    for (int column = 0; column < columns; column++)
                    {
                        double weight = weights[row * columns + column];
                        sum += weight * input[token * columns + column];
                        magnitude += Math.Abs(weight);
                    }
                    double tolerance = magnitude * largest * (linear.Reads == ActivationForms.Floats ? 1e-5 : 0.5001 / 127 + 1e-4);
                    Assert.True(Math.Abs(output[i] - sum) <= tolerance, $"{folder}, {name}, token {token}, row {row}: {output[i]}, not {sum} ± {tolerance}");
                }
                matrices++;
            }
        }
        Assert.NotEqual(0, matrices);
    }

    [Fact]
    public void Layers_with_the_same_codes_become_one_and_others_stay()
    {
        Random random = Seed.Fresh();
        TinyModel model = TinyModels.Make("llama tied", random.Next());
        TestCodedMatrix[] matrices = Matrices(model, CodedData.Cases[2], random);
        using var apart = new TestCodedCheckpoint(matrices, model.ToCheckpoint());
        Assert.Equal(3, ModelPlanReader.Read(apart).Layers.Blocks.Length);
        TestCodedMatrix[] copied = [.. matrices.Select(matrix => matrix.Name.StartsWith("model.layers.2.", StringComparison.Ordinal)
            ? matrices.Single(other => other.Name == matrix.Name.Replace("layers.2.", "layers.0.", StringComparison.Ordinal)).Named(matrix.Name) : matrix)];
        using var shared = new TestCodedCheckpoint(copied, model.ToCheckpoint());
        Assert.Equal([0, 1, 0], ModelPlanReader.Read(shared).Layers.Steps.Select(static step => step.Block));
    }

    [Fact]
    public void Coded_matrices_are_quantized_anew_and_never_copied()
    {
        Random random = Seed.Fresh();
        TinyModel model = TinyModels.Make("llama tied", random.Next());
        TestCodedMatrix[] matrices = Matrices(model, CodedData.Cases[2], random);
        using var quantized = new QuantizedCheckpoint(new TestCodedCheckpoint(matrices, model.ToCheckpoint()), QuantizationRecipe.Named("q8_0"));
        float[] decoded = new float[matrices[0].Columns], again = new float[matrices[0].Columns];
        TensorView view = quantized[matrices[0].Name];
        Assert.NotEqual(DType.Coded, view.DType);
        for (int row = 0; row < matrices[0].Rows; row++)
        {
            matrices[0].DecodeRow(row, decoded);
            view.DecodeRow(row, again);
            float largest = decoded.Max(Math.Abs);
            Assert.All(decoded.Zip(again), pair => Assert.InRange(pair.Second - pair.First, -largest / 100, largest / 100));
        }
        using var source = new TestCodedCheckpoint(matrices);
        EngineException exception = Assert.Throws<EngineException>(() => TensorSource.From(source[matrices[0].Name]));
        Assert.Equal(matrices[0].Name, exception.Item);
    }

    /// <summary>A matrix of the kind in place of each matrix of projections, token table and head, with weights about as large.</summary>
    private static TestCodedMatrix[] Matrices(TinyModel model, CodedCase kind, Random random) =>
    [
        .. model.Tensors.Where(static tensor => tensor.Value.Shape.Length == 2 && QuantizedCheckpoint.Covers(tensor.Key))
            .Select(tensor => CodedData.Make(kind, (int)tensor.Value.Shape[0], (int)tensor.Value.Shape[1], random, tensor.Key).Normalized()),
    ];
}
