using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Compression;
using Engine.Execution;
using Engine.Plans;
using Engine.Tests.Plans;
using Engine.Tests.Plans.Oracle;
using Engine.Transforms.Quantization;

namespace Engine.Tests.Compression;

/// <summary>What is left out of models, and that what is left computes what it should.</summary>
public sealed class StructureCutTests : IDisposable
{
    // Sums are made in another order, and what float32 rounds grows with each layer; a neuron or expert too few changes logits by their own size.
    private const double Tolerance = 1e-3;

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData("llama tied")]
    [InlineData("qwen3 layer types")]
    [InlineData("qwen2_moe")]
    public void A_model_without_a_layer_is_that_layer_order(string name)
    {
        TinyModel model = Make(name);
        // Layer 1 adds next to nothing.
        foreach (string tensor in model.Tensors.Keys.Where(static key => key.StartsWith("model.layers.1.", StringComparison.Ordinal)
            && (key.Contains("o_proj", StringComparison.Ordinal) || key.Contains("down_proj", StringComparison.Ordinal))).ToArray())
        {
            (long[] shape, float[] values) = model.Tensors[tensor];
            model.Tensors[tensor] = (shape, [.. values.Select(static value => value / 64)]);
        }
        string source = ModelFolder.Write(folder, model), target = folder.File("out");
        Run(source, target, new CompressionOptions { DropLayers = 1 }, model);
        int[] tokens = model.Tokens(30);
        foreach ((float[] expected, float[] found) in Logits(source, tokens, "0,2").Zip(Logits(target, tokens)))
        {
            Cpu.TestRows.SameBits(expected, found, name);
        }
        Assert.Equal(2, (int)Config(target)["num_hidden_layers"]!);
    }

    [Theory]
    [InlineData("llama tied")]
    [InlineData("qwen3")]
    [InlineData("qwen3_moe fused")]
    public void A_model_whose_layers_share_is_that_layer_order(string name)
    {
        TinyModel model = Make(name);
        string source = ModelFolder.Write(folder, model), target = folder.File("out");
        Run(source, target, new CompressionOptions { ShareLayers = 2 }, model);
        int[] tokens = model.Tokens(30);
        foreach ((float[] expected, float[] found) in Logits(source, tokens, "0,1=0,2=0").Zip(Logits(target, tokens)))
        {
            Cpu.TestRows.SameBits(expected, found, name);
        }
        using Checkpoint shared = CheckpointFile.Open(target);
        Assert.Single(ModelPlanReader.Read(shared).Layers.Blocks);
    }

    [Theory]
    [InlineData("qwen2_moe")]
    [InlineData("qwen3_moe fused")]
    [InlineData("mixtral")]
    [InlineData("deepseek")]
    public void Experts_that_are_chosen_least_are_dropped(string name)
    {
        TinyModel model = Make(name);
        string source = ModelFolder.Write(folder, model), target = folder.File("out");
        int[][] text = ModelFolder.Text(model);
        Run(source, target, new CompressionOptions { DropExperts = 2 }, model, text);

        var counter = new Counter();
        using (LanguageModel whole = LanguageModel.Load(source, new LanguageModelOptions { Threads = 1, KvFormat = KvFormat.F32 }))
        {
            whole.ExpertObserver = counter;
            foreach (int[] sequence in text)
            {
                using LogitsSession session = whole.CreateLogitsSession();
                session.Feed(sequence, sequence.Length, static (_, _) => { });
            }
        }
        using Checkpoint before = CheckpointFile.Open(source), after = CheckpointFile.Open(target);
        ModelPlan old = ModelPlanReader.Read(before), left = ModelPlanReader.Read(after);
        foreach ((int layer, double[] weights) in counter.Weights)
        {
            int[] kept = [.. Enumerable.Range(0, ExpertModels.Experts).OrderByDescending(expert => weights[expert]).Take(4).Order()];
            ExpertsPlan from = old.Layers.Blocks[layer].Experts!, to = left.Layers.Blocks[layer].Experts!;
            Assert.Equal(4, to.Router.Experts);
            float[] router = before[from.Router.Logits.Parts[0].Weight!.Tensor].ToFloats();
            Assert.Equal(
                kept.SelectMany(expert => router[(expert * ExpertModels.Hidden)..((expert + 1) * ExpertModels.Hidden)]),
                after[to.Router.Logits.Parts[0].Weight!.Tensor].ToFloats());
            for (int slot = 0; slot < kept.Length; slot++)
            {
                Assert.Equal(Down(before, from.Slots[kept[slot]]), Down(after, to.Slots[slot]));
            }
        }
        Assert.Equal(4, (int)(Config(target)["num_experts"] ?? Config(target)["num_local_experts"] ?? Config(target)["n_routed_experts"])!);
        Assert.NotEmpty(Logits(target, model.Tokens(5)));
    }

    [Theory]
    [InlineData("llama tied", "intermediate_size", 32)]
    [InlineData("llama biases, gelu", "intermediate_size", 32)]
    [InlineData("qwen3_moe", "moe_intermediate_size", 16)]
    public void Neurons_that_do_nothing_are_not_missed(string name, string key, int width)
    {
        TinyModel model = Make(name);
        Random random = Seed.Fresh();
        // As many as are cut do nothing: the last matrix does not read them, or nothing comes to it.
        foreach (string tensor in model.Tensors.Keys.Where(static key => key.EndsWith("down_proj.weight", StringComparison.Ordinal)).ToArray())
        {
            (long[] shape, float[] values) = model.Tensors[tensor];
            int columns = (int)shape[1];
            HashSet<int> idle = [.. Enumerable.Range(0, columns).OrderBy(_ => random.Next()).Take(columns - width)];
            model.Tensors[tensor] = (shape, [.. values.Select((value, i) => idle.Contains(i % columns) ? 0 : value)]);
        }
        string source = ModelFolder.Write(folder, model, DType.F32), target = folder.File("out");
        int old = (int)model.Config[key]!;
        Run(source, target, new CompressionOptions { Narrow = 1 - (double)width / old }, model);
        Assert.Equal(width, (int)Config(target)[key]!);
        int[] tokens = model.Tokens(20);
        foreach ((float[] expected, float[] found) in Logits(source, tokens).Zip(Logits(target, tokens)))
        {
            Cpu.TestRows.Close(expected, found, Tolerance, name);
        }
    }

    [Theory]
    [InlineData("llama tied", 1.0, 4, 2)]
    [InlineData("llama grouped queries, llama3 rope, untied", 0.5, 4, 2)]
    [InlineData("smollm", 2.0, 9, 3)]
    [InlineData("smollm", 0.3, 9, 3)]
    [InlineData("llama biases, gelu", 1.0, 4, 2)]
    [InlineData("qwen3 layer types", 1.0, 4, 2)]
    [InlineData("qwen2_moe", 1.0, 4, 2)]
    [InlineData("phimoe", 1.0, 4, 2)]
    public void Heads_that_do_nothing_are_not_missed(string name, double dropped, int heads, int groups)
    {
        TinyModel model = Make(name);
        Random random = Seed.Fresh();
        int gone = (int)Math.Round(dropped < 1 ? dropped * groups : dropped), queries = heads / groups;
        // Of every layer other heads, whose results the output projection does not read. One that is left is small, but does something.
        foreach (string tensor in model.Tensors.Keys.Where(static key => key.EndsWith("o_proj.weight", StringComparison.Ordinal)).ToArray())
        {
            (long[] shape, float[] values) = model.Tensors[tensor];
            int columns = (int)shape[1], headDim = columns / heads;
            int[] order = [.. Enumerable.Range(0, groups).OrderBy(_ => random.Next())];
            model.Tensors[tensor] = (shape, [.. values.Select((value, i) => Array.IndexOf(order, i % columns / headDim / queries) is var place && place < gone ? 0
                : place == gone ? value / 8 : value)]);
        }
        string source = ModelFolder.Write(folder, model, DType.F32), target = folder.File("out");
        Run(source, target, new CompressionOptions { DropHeads = dropped }, model);
        JsonNode config = Config(target);
        Assert.Equal(
            (heads - gone * queries, groups - gone, model.Config["head_dim"]?.GetValue<int>() ?? (int)model.Config["hidden_size"]! / heads),
            ((int)config["num_attention_heads"]!, (int)config["num_key_value_heads"]!, (int)config["head_dim"]!));
        int[] tokens = model.Tokens(20);
        foreach ((float[] expected, float[] found) in Logits(source, tokens).Zip(Logits(target, tokens)))
        {
            Cpu.TestRows.Close(expected, found, Tolerance, name);
        }
    }

    [Theory]
    [InlineData("deepseek_v2 lite")]
    [InlineData("deepseek_v3")]
    public void Heads_of_latent_attention_that_do_nothing_are_not_missed(string name)
    {
        TinyModel model = MoeModels.Make(name, Seed.Fresh().Next());
        int heads = (int)model.Config["num_attention_heads"]!;
        foreach (string tensor in model.Tensors.Keys.Where(static key => key.EndsWith("o_proj.weight", StringComparison.Ordinal)).ToArray())
        {
            (long[] shape, float[] values) = model.Tensors[tensor];
            int columns = (int)shape[1], idle = Seed.Fresh().Next(heads);
            model.Tensors[tensor] = (shape, [.. values.Select((value, i) => i % columns / (columns / heads) == idle ? 0 : value)]);
        }
        string source = ModelFolder.Write(folder, model, DType.F32), target = folder.File("out");
        Run(source, target, new CompressionOptions { DropHeads = 1 }, model);
        Assert.Equal(heads - 1, (int)Config(target)["num_attention_heads"]!);
        int[] tokens = model.Tokens(20);
        foreach ((float[] expected, float[] found) in Logits(source, tokens).Zip(Logits(target, tokens)))
        {
            Cpu.TestRows.Close(expected, found, Tolerance, model.Name);
        }
    }

    /// <summary>A configuration that was changed is written as one that was read.</summary>
    [Fact]
    public void What_is_left_can_be_a_gguf()
    {
        TinyModel model = TinyModels.Make("llama tied", Seed.Fresh().Next());
        string source = ModelFolder.Write(folder, model), left = folder.File("left"), target = folder.File("out.gguf");
        CompressionOptions options = new() { DropHeads = 1, Narrow = 0.25, DropLayers = 1 };
        int[][] text = ModelFolder.Text(model);
        Run(source, left, options, model, text);
        Run(source, target, options with { Gguf = QuantizationRecipe.Named("BF16") }, model, text);
        int[] tokens = model.Tokens(20);
        // The same weights in another order of rows.
        foreach ((float[] expected, float[] found) in Logits(left, tokens).Zip(Logits(target, tokens)))
        {
            Cpu.TestRows.Close(expected, found, Tolerance, "GGUF");
        }
    }

    [Fact]
    public void Merged_experts_that_differ_in_the_order_of_their_neurons_are_what_they_were()
    {
        TinyModel model = ExpertModels.Make("qwen2_moe");
        Random random = Seed.Fresh();
        for (int layer = 0; layer < ExpertModels.Layers; layer++)
        {
            string experts = ExpertModels.Module(model.Name, layer) + ".experts.";
            for (int expert = 1; expert < ExpertModels.Experts; expert++)
            {
                int[] order = [.. Enumerable.Range(0, ExpertModels.Width).OrderBy(_ => random.Next())];
                foreach (string name in ExpertModels.UsualNames)
                {
                    (long[] shape, float[] values) = model.Tensors[$"{experts}0.{name}.weight"];
                    int columns = (int)shape[1];
                    bool isDown = name == "down_proj";
                    model.Tensors[$"{experts}{expert}.{name}.weight"] = (shape, [.. values.Select((_, i) => isDown
                        ? values[i / columns * columns + order[i % columns]]
                        : values[order[i / columns] * columns + i % columns])]);
                }
            }
        }
        string source = ModelFolder.Write(folder, model, DType.F32), target = folder.File("out");
        Run(source, target, new CompressionOptions { MergeExperts = 4 }, model);
        using Checkpoint merged = CheckpointFile.Open(target);
        Assert.All(ModelPlanReader.Read(merged).Experts(), static experts => Assert.Equal((6, 3), (experts.Map.Length, experts.Slots.Length)));
        int[] tokens = model.Tokens(20);
        foreach ((float[] expected, float[] found) in Logits(source, tokens).Zip(Logits(target, tokens)))
        {
            Cpu.TestRows.Close(expected, found, Tolerance, "merged");
        }
    }

    [Fact]
    public void The_least_used_join_those_whose_logits_are_most_alike()
    {
        double[,] alike = new double[4, 4];
        (alike[0, 1], alike[0, 3], alike[2, 1], alike[2, 3]) = (0.2, 0.9, -0.1, -0.3);
        Assert.Equal([3, 1, 1, 3], ExpertMerge.Groups([1, 5, 2, 7], (expert, other) => alike[expert, other], 2));
    }

    [Fact]
    public void What_is_left_is_quantized_and_goes_on_after_an_interruption()
    {
        TinyModel model = Make("qwen3_moe");
        string source = ModelFolder.Write(folder, model), target = folder.File("out");
        CompressionOptions options = new()
        {
            DropLayers = 1,
            DropExperts = 3,
            Quantize = IntegerFormat.Parse("int8"),
            Method = RoundingMethod.Gptq,
        };
        int[][] text = ModelFolder.Text(model);
        using (ModelCompressor first = ModelCompressor.Open(source, target, options, text))
        {
            Assert.Equal(2, first.Layers);
        }
        Run(source, target, options, model, text);
        Assert.Equal("int-quantized", (string?)Config(target)["quantization_config"]!["format"]);
        Assert.Equal(3, (int)Config(target)["num_experts"]!);
    }

    [Fact]
    public void What_cannot_be_left_out_is_refused()
    {
        Refused("fewer than the 3 layers", "llama tied", new CompressionOptions { DropLayers = 3 });
        Refused("fewer than the 3 layers", "llama tied", new CompressionOptions { DropLayers = 2, ShareLayers = 1 });
        Refused("no experts", "llama tied", new CompressionOptions { DropExperts = 1 });
        Refused("at most 4", "qwen3_moe", new CompressionOptions { DropExperts = 5 });
        Refused("fewer than the 6 experts", "qwen3_moe", new CompressionOptions { MergeExperts = 6 });
        Refused("not both", "qwen3_moe", new CompressionOptions { MergeExperts = 1, DropExperts = 1 });
        Refused("of its own", "qwen3_moe fused", new CompressionOptions { MergeExperts = 1 });
        Refused("of its own", "qwen3_moe fused", new CompressionOptions { Narrow = 0.5 });
        Refused("of its own", "gpt2", new CompressionOptions { Narrow = 0.5 });
        Refused("another name", "gpt2", new CompressionOptions { DropLayers = 1 });
        Refused("needs a text", "llama tied", new CompressionOptions { DropLayers = 1 }, withText: false);
        Refused("fewer than the 2 key-value heads, found 2", "llama tied", new CompressionOptions { DropHeads = 2 });
        Refused("fewer than the 2 key-value heads, found 0 (0.2)", "llama tied", new CompressionOptions { DropHeads = 0.2 });
        Refused("expected a number of heads or a part", "llama tied", new CompressionOptions { DropHeads = 1.5 });
        Refused("normalised all together", "olmoe", new CompressionOptions { DropHeads = 1 });
        Refused("of its own", "gpt2", new CompressionOptions { DropHeads = 1 });
        Refused("needs a text", "llama tied", new CompressionOptions { DropHeads = 1 }, withText: false);

        void Refused(string reason, string name, CompressionOptions options, bool withText = true)
        {
            TinyModel model = Make(name);
            using TemporaryFolder place = new();
            string source = ModelFolder.Write(place, model);
            EngineException error = Assert.Throws<EngineException>(
                () => ModelCompressor.Open(source, place.File("out"), options, withText ? ModelFolder.Text(model) : null));
            Assert.Contains(reason, error.Message, StringComparison.Ordinal);
        }
    }

    private static TinyModel Make(string name) => name.Split(' ')[0] is var family && ExpertModels.Families.Contains(family)
        ? name.EndsWith("fused", StringComparison.Ordinal) ? ExpertModels.Fuse(ExpertModels.Make(family)) : ExpertModels.Make(family)
        : TinyModels.Make(name, Seed.Fresh().Next());

    private static void Run(string source, string target, CompressionOptions options, TinyModel model, int[][]? text = null)
    {
        using ModelCompressor compressor = ModelCompressor.Open(source, target, options, text ?? ModelFolder.Text(model), threads: 1);
        compressor.Run();
        compressor.Write();
    }

    private static JsonNode Config(string path) => JsonNode.Parse(File.ReadAllText(Path.Combine(path, "config.json")))!;

    private static float[] Down(Checkpoint checkpoint, FeedForwardPlan slot)
    {
        WeightRef weight = slot.Down.Parts[0].Weight!;
        TensorView tensor = checkpoint[weight.Tensor];
        return tensor.SliceRows(weight.FirstRow, slot.Down.Outputs).ToFloats();
    }

    private static List<float[]> Logits(string path, int[] tokens, string? layers = null)
    {
        using LanguageModel model = LanguageModel.Load(path, new LanguageModelOptions { Threads = 1, Layers = layers });
        using LogitsSession session = model.CreateLogitsSession();
        List<float[]> rows = [];
        session.Feed(tokens, 0, (_, logits) => rows.Add(logits.ToArray()));
        return rows;
    }

    private sealed class Counter : IExpertObserver
    {
        public Dictionary<int, double[]> Weights { get; } = [];

        public void Chosen(int layer, int most, ReadOnlySpan<int> slots, ReadOnlySpan<float> weights)
        {
            if (!Weights.TryGetValue(layer, out double[]? sums))
            {
                Weights[layer] = sums = new double[ExpertModels.Experts + 1];
            }
            for (int place = 0; place < slots.Length; place++)
            {
                sums[slots[place]] += weights[place];
            }
        }
    }
}
