using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Reference;
using Engine.Tests.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Whole models in folders that independent packers wrote, against the same models with the weights that were packed.</summary>
public sealed class CodedModelTests
{
    // Random codes make weights far larger than those of trained models: what float32 between two operations rounds away grows with each layer. A weight that is
    // not the one that was packed changes logits by their own size.
    private const double Tolerance = 1e-3;

    public static TheoryData<string> Formats => PackedFormat.Names;

    [Theory]
    [MemberData(nameof(Formats))]
    public void A_quantized_folder_gives_the_logits_of_its_weights(string name)
    {
        Random random = Seed.Fresh();
        PackedFormat format = FormatFor(name, random);
        TinyModel model = TinyModels.Make(ModelFor(format), random.Next());
        using var folder = new TemporaryFolder();
        Assert.True(Write(folder, model, format, random) > 6, $"{format} hardly fits the model");
        int[] tokens = model.Tokens(14);
        using var harness = new ModelHarness(CheckpointFile.Open(folder.Path), new ReferenceBackend(), pageTokens: 4);
        FamiliesAgainstOracleTests.AssertClose(
            FamiliesAgainstOracleTests.OracleLogits(model, tokens), harness.Run(tokens, chunk: 5), Tolerance, $"{format}, {model}");
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void The_cpu_gives_them_too_but_for_the_rounding_of_activations(string name)
    {
        const int Models = 3;
        Random random = Seed.Fresh();
        string found = "";
        // Small random models amplify the rounding to 8 bits, those with weights of one bit most, and one in some hundreds until little is left: one of a few models
        // must not. Weights of another row or column would leave the logits of all of them with nothing in common, at angles whose cosines are 0.
        for (int i = 0; i < Models; i++)
        {
            PackedFormat format = FormatFor(name, random);
            TinyModel model = TinyModels.Make(ModelFor(format), random.Next());
            double cosine = CosineOnCpu(model, format, random);
            if (cosine >= 0.7)
            {
                return;
            }
            found += $"{format}, {model}: a cosine of {cosine}\n";
        }
        Assert.Fail(found);
    }

    /// <summary>Of the angle between the logits of the oracle and those of the CPU.</summary>
    private static double CosineOnCpu(TinyModel model, PackedFormat format, Random random)
    {
        using var folder = new TemporaryFolder();
        Write(folder, model, format, random);
        int[] tokens = model.Tokens(14);
        double[][] expected = FamiliesAgainstOracleTests.OracleLogits(model, tokens);
        using var harness = new ModelHarness(CheckpointFile.Open(folder.Path), new CpuBackend(new CpuOptions { Threads = 2 }), pageTokens: 4);
        float[][] found = harness.Run(tokens, chunk: 5);
        double product = expected.Zip(found, static (a, b) => a.Zip(b, static (x, y) => x * y).Sum()).Sum();
        double sizes = Math.Sqrt(expected.Sum(static a => a.Sum(static x => x * x)) * found.Sum(static a => a.Sum(static x => (double)x * x)));
        return product / sizes;
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void A_quantized_folder_is_converted_to_a_file_of_its_weights(string name)
    {
        Random random = Seed.Fresh();
        PackedFormat format = FormatFor(name, random);
        TinyModel model = TinyModels.Make(ModelFor(format), random.Next());
        using var folder = new TemporaryFolder();
        Write(folder, model, format, random);
        using (Checkpoint quantized = CheckpointFile.Open(folder.Path))
        {
            GgufConverter.Convert(quantized, folder.File("model.gguf"), QuantizationRecipe.Named("F32"));
        }
        int[] tokens = model.Tokens(9);
        using var harness = new ModelHarness(CheckpointFile.Open(folder.File("model.gguf")), new ReferenceBackend(), pageTokens: 4);
        FamiliesAgainstOracleTests.AssertClose(
            FamiliesAgainstOracleTests.OracleLogits(model, tokens), harness.Run(tokens, chunk: 9), Tolerance, $"{format}, {model}");
    }

    /// <summary>A model of that hidden size, some of whose projections the format can store.</summary>
    private static string ModelFor(PackedFormat format) =>
        format.Fits(32, 32) ? "llama grouped queries, llama3 rope, untied" : "llama with heads of 128";

    /// <summary>Experts and latent attention, whose linears are rows and heads of the tensors. FP8 meets float32 on the CPU too.</summary>
    [Theory]
    [InlineData("deepseek_v3", "fp8 blocks")]
    [InlineData("deepseek_v2", "fp8 scalars")]
    [InlineData("deepseek_v3", "pack-quantized 4 bit")]
    [InlineData("qwen3_moe", "fp8 blocks")]
    [InlineData("mixtral", "float-quantized")]
    public void Mixtures_in_quantized_folders_give_the_logits_of_their_weights(string model, string name)
    {
        Random random = Seed.Fresh();
        PackedFormat format = FormatFor(name, random);
        TemporaryFolder? folder = null;
        int packed = 0;
        try
        {
            (TinyModel drawn, int[] tokens, double[][] expected) = MoeModels.Draw(model, 13, made =>
            {
                folder?.Dispose();
                folder = new TemporaryFolder();
                packed = Write(folder, made, format, random);
            });
            Assert.True(packed > 6, $"{format} hardly fits the model");
            using var reference = new ModelHarness(CheckpointFile.Open(folder!.Path), new ReferenceBackend(), pageTokens: 4);
            FamiliesAgainstOracleTests.AssertClose(expected, reference.Run(tokens, chunk: 5), Tolerance, $"{format}, {drawn}");
            using var cpu = new ModelHarness(CheckpointFile.Open(folder.Path), new CpuBackend(new CpuOptions { Threads = 2 }), pageTokens: 4);
            float[][] found = cpu.Run(tokens, chunk: 5);
            if (!name.Contains("bit", StringComparison.Ordinal))
            {
                FamiliesAgainstOracleTests.AssertClose(expected, found, Tolerance, $"{format}, {drawn}");
            }
        }
        finally
        {
            folder?.Dispose();
        }
    }

    /// <summary>Settings with which the model's hidden size can be stored.</summary>
    private static PackedFormat FormatFor(string name, Random random)
    {
        while (true)
        {
            PackedFormat format = PackedFormat.Make(name, random);
            if (format.Fits(128, 32))
            {
                return format;
            }
        }
    }

    private static bool IsProjection(string name) =>
        name.EndsWith(".weight", StringComparison.Ordinal)
        && (name.Contains("_proj", StringComparison.Ordinal) || name.Contains(".experts.", StringComparison.Ordinal));

    /// <summary>
    /// Packs every projection that the format can store, and gives the model the weights that were packed instead of its own; returns how many.
    /// </summary>
    private static int Write(TemporaryFolder folder, TinyModel model, PackedFormat format, Random random)
    {
        var config = (JsonObject)model.Config.DeepClone();
        config["quantization_config"] = format.Config.DeepClone();
        List<RawTensor> tensors = [];
        int packed = 0;
        foreach ((string name, (long[] shape, float[] values)) in model.Tensors.ToArray())
        {
            const string Weight = ".weight";
            if (shape is [var rows, var columns] && IsProjection(name) && format.Fits((int)rows, (int)columns))
            {
                PackedModule module = format.Pack(random, (int)rows, (int)columns, 1 / MathF.Sqrt(columns));
                tensors.AddRange(CodedPackingTests.Named(module, name[..^Weight.Length]));
                model.Tensors[name] = (shape, module.Weights);
                packed++;
            }
            else
            {
                tensors.Add(new RawTensor(name, "F32", shape, RawValues.Bytes(values)));
            }
        }
        PackedFolder.Write(folder, config, tensors);
        return packed;
    }
}
