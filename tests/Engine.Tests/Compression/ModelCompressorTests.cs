using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Safetensors;
using Engine.Checkpoints.Writing;
using Engine.Compression;
using Engine.Plans;
using Engine.Tests.Plans;
using Engine.Tests.Plans.Oracle;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;

namespace Engine.Tests.Compression;

/// <summary>Whole models, from folder to folder.</summary>
public sealed class ModelCompressorTests : IDisposable
{
    private static readonly CompressionOptions SparseGpt = new() { Prune = SparsityPattern.TwoOfFour, Criterion = PruningCriterion.SparseGpt };

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("llama tied", PruningCriterion.Magnitude)]
    [InlineData("llama biases, gelu", PruningCriterion.SparseGpt)]
    [InlineData("gpt2", PruningCriterion.SparseGpt)]
    [InlineData("qwen2_moe", PruningCriterion.Wanda)]
    [InlineData("qwen3_moe fused", PruningCriterion.SparseGpt)]
    [InlineData("deepseek", PruningCriterion.Wanda)]
    public void Two_of_four_are_pruned_in_all_linear_maps_of_layers_and_nowhere_else(string name, PruningCriterion criterion)
    {
        TinyModel model = Make(name);
        string source = ModelFolder.Write(folder, model), target = folder.File("pruned");
        Compress(source, target, SparseGpt with { Criterion = criterion }, ModelFolder.Text(model));

        using Checkpoint before = CheckpointFile.Open(source), after = CheckpointFile.Open(target);
        Assert.Equal(before.TensorNames, after.TensorNames);
        HashSet<string> covered = Linears(before);
        Assert.True(covered.Count >= 6);
        foreach (string tensor in before.TensorNames)
        {
            TensorView old = before[tensor], now = after[tensor];
            if (!covered.Contains(tensor))
            {
                Assert.True(old.ContentEquals(now), tensor);
                continue;
            }
            Assert.Equal(old.DType, now.DType);
            Assert.Equal(old.Shape, now.Shape);
            float[] values = model.Name.StartsWith("gpt2", StringComparison.Ordinal) ? Transposed(now) : now.ToFloats();
            Assert.All(values.Chunk(4), group => Assert.True(group.Count(static weight => weight == 0) == 2, tensor));
        }
        Assert.Equal(before.Config.ToJsonString(), after.Config.ToJsonString());
        Assert.Equal("{}", File.ReadAllText(Path.Combine(target, "generation_config.json")));
        Assert.Equal(2, Directory.GetFileSystemEntries(folder.Path).Length);
        ModelPlanReader.Read(after);
    }

    [Fact]
    public void Calibrated_models_keep_more_of_the_logits()
    {
        // Of a single random model the better method may lose by chance: the losses of several are added.
        const int Models = 5;
        double magnitude = 0, sparseGpt = 0, nearest = 0, gptq = 0;
        CompressionOptions integers = new() { Quantize = IntegerFormat.Parse("int4:channel"), Method = RoundingMethod.Gptq };
        for (int i = 0; i < Models; i++)
        {
            TinyModel model = Make("llama tied");
            string source = ModelFolder.Write(folder, model);
            int[][] text = ModelFolder.Text(model, 24);
            sparseGpt += Loss(source, text, SparseGpt);
            magnitude += Loss(source, text, SparseGpt with { Criterion = PruningCriterion.Magnitude });
            gptq += Loss(source, text, integers);
            nearest += Loss(source, text, integers with { Method = RoundingMethod.Rtn });
        }
        Assert.True(sparseGpt < magnitude, $"{sparseGpt} with SparseGPT, {magnitude} by magnitude");
        Assert.True(gptq < nearest, $"{gptq} with GPTQ, {nearest} to the nearest");

        double Loss(string source, int[][] text, CompressionOptions options)
        {
            using ModelCompressor compressor = ModelCompressor.Open(source, folder.File(Guid.NewGuid().ToString()), options, text, threads: 1);
            compressor.Run();
            return Distance(CheckpointFile.Open(source), compressor.OpenCompressed(), text[0]);
        }
    }

    [Theory]
    [InlineData(1, "calibrating layer 2 of 3", "half")]
    [InlineData(2, "layer 2 of 3", "half")]
    [InlineData(1, "layer 3 of 3", "blocks")]
    [InlineData(1, "calibrating layer 2 of 3", "heads and integers")]
    public void Work_that_is_interrupted_goes_on_and_ends_as_it_would_have(int layersPerPass, string stage, string work)
    {
        TinyModel model = Make(work switch { "half" => "qwen2_moe", "blocks" => "mixtral", _ => "qwen3_moe" });
        string source = ModelFolder.Write(folder, model), whole = folder.File("whole"), resumed = folder.File("resumed");
        int[][] text = ModelFolder.Text(model);
        CompressionOptions options = work switch
        {
            "half" => SparseGpt with { Prune = SparsityPattern.Unstructured(0.5) },
            "blocks" => new() { Gguf = QuantizationRecipe.Named("Q4_0"), Method = RoundingMethod.Gptq },
            _ => new() { DropHeads = 1, Quantize = IntegerFormat.Parse("int8"), Method = RoundingMethod.Gptq },
        } with
        { LayersPerPass = layersPerPass };
        Compress(source, whole, options, text);

        using (ModelCompressor first = ModelCompressor.Open(source, resumed, options, text))
        {
            using CancellationTokenSource stop = new();
            var progress = new Stop(stop, stage);
            Assert.ThrowsAny<OperationCanceledException>(() => first.Run(progress, stop.Token));
        }
        Assert.False(Path.Exists(resumed));
        string layer = Path.Combine(resumed + ".partial", "layer-00000.safetensors");
        DateTime written = File.GetLastWriteTimeUtc(layer);
        // Not with other options, nor with another text.
        EngineException other = Assert.Throws<EngineException>(() => ModelCompressor.Open(source, resumed, options with { Damping = 0.02 }, text));
        Assert.Contains("damping 0.01", other.Message, StringComparison.Ordinal);
        Assert.Throws<EngineException>(() => ModelCompressor.Open(source, resumed, options, text[1..]));

        using (ModelCompressor second = ModelCompressor.Open(source, resumed, options, text))
        {
            second.Run();
            Assert.Equal(written, File.GetLastWriteTimeUtc(layer));
            second.Write();
        }
        Assert.Equal(Content(whole), Content(resumed));
        Assert.False(Directory.Exists(resumed + ".partial"));

        static IEnumerable<string> Content(string path) => Directory.Exists(path)
            ? ModelFolder.Content(path).Select(static file => $"{file.Key} {file.Value}").Order()
            : [Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(path)))];
    }

    [Fact]
    public void A_damaged_layer_is_named()
    {
        TinyModel model = Make("llama tied");
        string source = ModelFolder.Write(folder, model), target = folder.File("out");
        CompressionOptions options = new() { Prune = SparsityPattern.TwoOfFour };
        using ModelCompressor compressor = ModelCompressor.Open(source, target, options);
        compressor.Run();
        string layer = Path.Combine(target + ".partial", "layer-00001.safetensors");
        File.WriteAllBytes(layer, File.ReadAllBytes(layer)[..100]);
        Assert.Equal(layer, Assert.Throws<EngineException>(() => compressor.Write()).File);
        Assert.False(Directory.Exists(target));
    }

    [Fact]
    public void Threads_change_nothing()
    {
        TinyModel model = Make("llama tied");
        string source = ModelFolder.Write(folder, model);
        int[][] text = ModelFolder.Text(model);
        string[] targets = [.. ((int[])[1, 3]).Select(threads =>
        {
            string target = folder.File($"{threads}");
            Compress(source, target, SparseGpt, text, threads);
            return target;
        })];
        Assert.Equal(ModelFolder.Content(targets[0]), ModelFolder.Content(targets[1]));
    }

    [Fact]
    public void What_layers_share_they_go_on_sharing()
    {
        TinyModel model = Make("llama tied");
        foreach (string tensor in model.Tensors.Keys.Where(static name => name.StartsWith("model.layers.2.", StringComparison.Ordinal)).ToArray())
        {
            model.Tensors[tensor] = model.Tensors[tensor.Replace(".2.", ".0.", StringComparison.Ordinal)];
        }
        string source = ModelFolder.Write(folder, model), target = folder.File("out");
        Compress(source, target, SparseGpt, ModelFolder.Text(model));
        using Checkpoint compressed = CheckpointFile.Open(target);
        ModelPlan plan = ModelPlanReader.Read(compressed);
        Assert.Equal((3, 2), (plan.Layers.Steps.Length, plan.Layers.Blocks.Length));
        Assert.Equal(2, compressed["model.layers.2.mlp.up_proj.weight"].ToFloats().Take(4).Count(static weight => weight == 0));
    }

    [Theory]
    [InlineData("int4:g4", "pack-quantized", "weight_packed")]
    [InlineData("int8", "int-quantized", "compressed")]
    public void Integers_are_written_as_they_ran(string format, string layout, string codes)
    {
        TinyModel model = Make("qwen3_moe");
        string source = ModelFolder.Write(folder, model), target = folder.File("out");
        CompressionOptions options = SparseGpt with { Quantize = IntegerFormat.Parse(format), Method = RoundingMethod.Gptq };
        using ModelCompressor compressor = ModelCompressor.Open(source, target, options, ModelFolder.Text(model));
        compressor.Run();
        const string Module = "model.layers.1.mlp.experts.3.down_proj";
        float[] ran;
        using (Checkpoint compressed = compressor.OpenCompressed())
        {
            ran = compressed[Module + ".weight"].ToFloats();
            Assert.All(ran.Chunk(4), static group => Assert.True(group.Count(static weight => weight == 0) >= 2));
        }
        compressor.Write();
        using var file = SafetensorsFile.Open(Path.Combine(target, HfFolder.WeightsName));
        Assert.True(file.TryGetTensor($"{Module}.{codes}", out _));
        Assert.False(file.TryGetTensor(Module + ".weight", out _));
        Assert.True(file.TryGetTensor("model.layers.1.mlp.gate.weight", out _));
        float[] scales = file[Module + ".weight_scale"].ToFloats();
        int columns = ExpertModels.Width, groups = scales.Length / ExpertModels.Hidden;
        if (layout == "pack-quantized")
        {
            int words = (columns + 7) / 8;
            uint[] packed = [.. file[$"{Module}.{codes}"].Bytes.ToArray().Chunk(4).Select(static word => BitConverter.ToUInt32(word))];
            for (int i = 0; i < ran.Length; i++)
            {
                int row = i / columns, column = i % columns;
                int code = (int)(packed[row * words + column / 8] >> (column % 8 * 4)) & 15;
                Assert.Equal(ran[i], (code - 8) * scales[row * groups + column / (columns / groups)]);
            }
        }
        var config = (JsonObject)JsonNode.Parse(File.ReadAllText(Path.Combine(target, "config.json")))!["quantization_config"]!;
        Assert.Equal((layout, "compressed-tensors"), ((string)config["format"]!, (string)config["quant_method"]!));
        Assert.Equal(
            ["lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate", "model.layers.2.mlp.gate"],
            config["ignore"]!.AsArray().Select(static name => (string)name!).Order(StringComparer.Ordinal));
        Assert.Equal(layout == "int-quantized" ? "sparse-24-bitmask" : null, (string?)config["sparsity_config"]!["format"]);
    }

    [Fact]
    public void A_gguf_has_the_zeros_too()
    {
        TinyModel model = Make("llama with heads of 128");
        string source = ModelFolder.Write(folder, model), dense = folder.File("dense.gguf"), target = folder.File("pruned.gguf");
        using (Checkpoint checkpoint = CheckpointFile.Open(source))
        {
            GgufConverter.Convert(checkpoint, dense, QuantizationRecipe.Named("F16"));
        }
        // From a folder, and from a GGUF, whose rows of queries have another order.
        foreach (string from in (string[])[source, dense])
        {
            Compress(from, target, SparseGpt with { Gguf = QuantizationRecipe.Named("F16") }, ModelFolder.Text(model));
            using Checkpoint pruned = CheckpointFile.Open(target);
            foreach (string tensor in Linears(pruned))
            {
                Assert.All(pruned[tensor].ToFloats().Chunk(4), group => Assert.True(group.Count(static weight => weight == 0) == 2, tensor));
            }
        }
    }

    [Theory]
    [InlineData("llama tied", "Q4_0")]
    [InlineData("llama with heads of 128", "Q4_K_M")]
    [InlineData("qwen3_moe", "Q8_0")]
    [InlineData("qwen3_moe fused", "IQ4_NL")]
    [InlineData("mixtral", "Q5_1")]
    public void Codes_of_a_gguf_are_those_that_were_chosen(string name, string format)
    {
        TinyModel model = Make(name);
        string source = ModelFolder.Write(folder, model), dense = folder.File("dense.gguf"), target = folder.File("out.gguf");
        using (Checkpoint checkpoint = CheckpointFile.Open(source))
        {
            GgufConverter.Convert(checkpoint, dense, QuantizationRecipe.Named("F32"));
        }
        CompressionOptions options = new() { Gguf = QuantizationRecipe.Named(format), Method = RoundingMethod.Gptq };
        // From a folder, and from a GGUF, whose rows of queries have another order.
        foreach (string from in (string[])[source, dense])
        {
            using ModelCompressor compressor = ModelCompressor.Open(from, target, options, ModelFolder.Text(model));
            compressor.Run();
            Dictionary<string, string[]> chosen;
            using (Checkpoint compressed = compressor.OpenCompressed())
            {
                chosen = Linears(compressed).Where(tensor => compressed[tensor].Columns % 32 == 0).ToDictionary(static tensor => tensor, tensor => Rows(compressed[tensor]));
            }
            compressor.Write();
            using Checkpoint written = CheckpointFile.Open(target);
            Dictionary<string, string[]> found = Linears(written).ToDictionary(static tensor => tensor, tensor => Rows(written[tensor]));
            Assert.True(chosen.Count >= 12);
            // Experts are one tensor in a GGUF, gate and up are two.
            Assert.Equal(
                chosen.Values.SelectMany(static rows => rows).Order(),
                found.Where(tensor => written[tensor.Key].Columns % 32 == 0).SelectMany(static tensor => tensor.Value).Order());
            Assert.True(chosen.Keys.Where(found.ContainsKey).All(tensor => chosen[tensor].Order().SequenceEqual(found[tensor].Order())));
            Assert.All(Linears(written).Where(tensor => written[tensor].Columns % 32 == 0), tensor => Assert.True(QuantizedBlocks.Takes(written[tensor].DType), tensor));
        }

        static string[] Rows(TensorView tensor) =>
            [.. Enumerable.Range(0, (int)tensor.Rows).Select(row => $"{tensor.DType} {Convert.ToHexString(tensor.Row(row))}")];
    }

    [Fact]
    public void What_cannot_be_done_is_refused_before_anything_is_written()
    {
        string source = ModelFolder.Write(folder, Make("gpt2")), target = folder.File("out");
        CompressionOptions integers = new() { Quantize = IntegerFormat.Parse("int8") };
        Refused("stored transposed", source, integers);
        Refused("needs a text", source, SparseGpt);
        Refused("neither pruning nor a format", source, new CompressionOptions());
        Refused("nothing is", source, integers with { Criterion = PruningCriterion.Wanda });
        Refused("no exact zero", source, SparseGpt with { Gguf = QuantizationRecipe.Named("Q4_K") });
        Refused("no format is asked for", source, new CompressionOptions { Prune = SparsityPattern.TwoOfFour, Method = RoundingMethod.Gptq });
        Refused("F16 has no codes to choose", source, new CompressionOptions { Gguf = QuantizationRecipe.Named("F16"), Method = RoundingMethod.Gptq });
        Refused("order of GPTQ", source, integers with { ActOrder = true });
        Refused("chooses among neighbours", source, SparseGpt with { Quantize = integers.Quantize, Method = RoundingMethod.Gptq, ActOrder = true });
        Directory.Delete(source, recursive: true);
        source = ModelFolder.Write(folder, Make("llama tied"));
        Refused("model.layers.0.self_attn.q_proj.weight: groups of 128 need a multiple of 128 inputs, found 32", source,
            new CompressionOptions { Quantize = IntegerFormat.Parse("int4") });
        Assert.Contains("onto itself", Assert.Throws<EngineException>(() => ModelCompressor.Open(source, source, integers)).Message, StringComparison.Ordinal);
        folder.Write("out", "a file");
        Refused("exists already", source, integers);
        File.Delete(target);
        Directory.CreateDirectory(target + ".partial");
        File.WriteAllText(Path.Combine(target + ".partial", "mine"), "");
        Refused("holds something else", source, integers);

        void Refused(string reason, string model, CompressionOptions options)
        {
            EngineException error = Assert.Throws<EngineException>(() => ModelCompressor.Open(model, target, options));
            Assert.Contains(reason, error.Message, StringComparison.Ordinal);
            Assert.False(Directory.Exists(target));
        }
    }

    private static TinyModel Make(string name)
    {
        if (name.Split(' ')[0] is var family && ExpertModels.Families.Contains(family))
        {
            // As GGUF has it without saying so.
            TinyModel model = ExpertModels.Make(family, family == "qwen3_moe" ? """{"norm_topk_prob": true}""" : "{}");
            return name.EndsWith("fused", StringComparison.Ordinal) ? ExpertModels.Fuse(model) : model;
        }
        return TinyModels.Make(name, Seed.Fresh().Next());
    }

    private static void Compress(string source, string target, CompressionOptions options, int[][] text, int threads = 2)
    {
        using ModelCompressor compressor = ModelCompressor.Open(source, target, options, text, threads);
        compressor.Run();
        compressor.Write();
    }

    /// <summary>The matrices of attention and feed-forwards, by name; routers and gates of experts are none.</summary>
    private static HashSet<string> Linears(Checkpoint checkpoint) =>
    [
        .. checkpoint.TensorNames.Where(name => checkpoint[name].Shape.Length > 1 && (name.Contains("_proj", StringComparison.Ordinal)
            || name.Contains(".c_", StringComparison.Ordinal) || name.Contains(".experts.", StringComparison.Ordinal))),
    ];

    private static float[] Transposed(TensorView tensor)
    {
        float[] values = tensor.ToFloats();
        int rows = (int)tensor.Shape[0], columns = (int)tensor.Shape[1];
        return [.. Enumerable.Range(0, values.Length).Select(i => values[i % rows * columns + i / rows])];
    }

    private static double Distance(Checkpoint one, Checkpoint other, int[] tokens)
    {
        float[][] expected = Logits(one), found = Logits(other);
        return expected.Zip(found).Sum(static pair => pair.First.Zip(pair.Second).Sum(static logit => Math.Pow(logit.First - logit.Second, 2)));

        float[][] Logits(Checkpoint checkpoint)
        {
            using LanguageModel model = LanguageModel.Load(checkpoint, new LanguageModelOptions { Threads = 1 });
            using LogitsSession session = model.CreateLogitsSession();
            List<float[]> rows = [];
            session.Feed(tokens, 0, (_, logits) => rows.Add(logits.ToArray()));
            return [.. rows];
        }
    }

    private sealed class Stop(CancellationTokenSource source, string stage) : IProgress<CompressionProgress>
    {
        public void Report(CompressionProgress value)
        {
            if (value.Stage == stage)
            {
                source.Cancel();
            }
        }
    }
}
