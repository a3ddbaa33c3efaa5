using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Execution;

namespace Engine.Tests.Checkpoints;

/// <summary>Folders of random weights for measurements.</summary>
public sealed class SyntheticFolderTests : IDisposable
{
    private const int Vocabulary = 256;

    private static readonly SyntheticShape Llama = new("llama", 8, 64, 96, 4, 2, 16, Vocabulary, true, 1e4f, 128);
    private static readonly SyntheticShape Qwen = new("qwen2_parscale", 3, 64, 96, 4, 2, 16, Vocabulary, true, 1e6f, 128);

    private readonly TemporaryFolder folder = new();
    private readonly int seed = Random.Shared.Next();

    public SyntheticFolderTests() => TestContext.Current.TestOutputHelper?.WriteLine($"seed {seed}");

    public void Dispose() => folder.Dispose();

    [Theory]
    [InlineData(2, DType.BF16)]
    [InlineData(3, DType.BF16)]
    [InlineData(3, DType.F32)]
    [InlineData(6, DType.F16)]
    public void A_token_goes_as_deep_as_its_share_says_wherever_it_stands(int recursions, DType dtype)
    {
        using LanguageModel model = Write(new SyntheticFolderShape(Llama) { Recursions = recursions }, dtype);
        Random random = new(seed);
        int[] order = [.. Enumerable.Range(0, Vocabulary)];
        random.Shuffle(order);
        int[] found = new int[Vocabulary];
        foreach (int[] part in order.Chunk(64))
        {
            using LogitsSession session = model.CreateLogitsSession();
            session.Feed(part, 0, static (_, logits) => Assert.All(logits.ToArray(), static logit => Assert.True(float.IsFinite(logit))));
            for (int i = 0; i < part.Length; i++)
            {
                found[part[i]] = session.Depths[i];
            }
        }
        double[] capacities = [.. model.Plan.Layers.Recursion!.Router!.Capacities];
        Assert.Equal(recursions, capacities.Length);
        for (int token = 0; token < Vocabulary; token++)
        {
            Assert.Equal(capacities.Count(capacity => SyntheticFolder.ShareOf(token) < capacity), found[token]);
        }
        // Shares of a vocabulary are those of the capacities, to one part in the number of distinct shares.
        for (int depth = 0; depth < recursions; depth++)
        {
            Assert.Equal(capacities[depth], found.Count(deep => deep > depth) / (double)Vocabulary, 3.0 / SyntheticFolder.Shares);
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    public void Streams_share_their_backbone(int streams)
    {
        using LanguageModel model = Write(new SyntheticFolderShape(Qwen) { Streams = streams }, DType.BF16);
        Assert.Equal(streams, model.Plan.Streams!.Sets[0].Count);
        using LogitsSession session = model.CreateLogitsSession();
        Assert.All(session.Feed(1, 2, 3), static logit => Assert.True(float.IsFinite(logit)));
        using Checkpoint one = Open(new SyntheticFolderShape(Qwen) { Streams = 1 }, DType.BF16, "one");
        using Checkpoint many = CheckpointFile.Open(folder.File("model"));
        Assert.All(one.TensorNames, name => Assert.True(one[name].ContentEquals(many[name]), name));
    }

    [Fact]
    public void The_same_arguments_give_the_same_files()
    {
        var shape = new SyntheticFolderShape(Llama) { Recursions = 2 };
        Open(shape, DType.BF16, "a").Dispose();
        Open(shape, DType.BF16, "b").Dispose();
        foreach (string file in Directory.GetFiles(folder.File("a")))
        {
            Assert.Equal(File.ReadAllBytes(file), File.ReadAllBytes(Path.Combine(folder.File("b"), Path.GetFileName(file))));
        }
        Assert.Throws<EngineException>(() => SyntheticFolder.Write(folder.File("q"), shape, DType.Q8_0, seed));
    }

    [Fact]
    public void Presets_have_the_papers_parameters()
    {
        // Bae et al. 2025, table 3, and Chen et al. 2025: without the embedding, counted from the shapes.
        Assert.Equal(314_635_200, Parameters("mor-360m"));
        Assert.Equal(167_150_400 + 2 * 960, Parameters("mor-360m-r2"));
        Assert.Equal(117_988_800 + 3 * 960, Parameters("mor-360m-r3"));
        Assert.Equal(98_324_160 + 4 * 960, Parameters("mor-360m-r4"));
        Assert.Equal(1_571_472_384, Parameters("parscale-1.8b-p1"));

        static long Parameters(string preset)
        {
            SyntheticFolderShape shape = SyntheticFolderShape.Presets[preset];
            SyntheticShape widths = shape.Backbone;
            long hidden = widths.Hidden, queries = widths.Heads * widths.HeadDim, keys = widths.KvHeads * widths.HeadDim;
            long layer = hidden * (queries + 2 * keys) + queries * hidden + 3 * hidden * widths.FeedForward + 2 * hidden
                + (shape.Streams > 0 ? queries + 2 * keys : 0);
            int recursions = shape.Recursions, layers = recursions == 1 ? widths.Layers : (widths.Layers - 2) / recursions + 2;
            return layers * layer + hidden + (recursions > 1 ? recursions * hidden : 0);
        }
    }

    private Checkpoint Open(SyntheticFolderShape shape, DType dtype, string name)
    {
        SyntheticFolder.Write(folder.File(name), shape, dtype, seed);
        return CheckpointFile.Open(folder.File(name));
    }

    private LanguageModel Write(SyntheticFolderShape shape, DType dtype) => LanguageModel.Load(
        Open(shape, dtype, "model"), new LanguageModelOptions { Threads = 2, KvFormat = KvFormat.F32, ContextLength = 64 });
}
