using Engine.Execution;
using Engine.Generation;
using Engine.Sampling;

namespace Engine.Tests.Generation;

/// <summary>Generations of models that route tokens to depths, many at a time: rows of all sequences and depths share steps, and nobody notices.</summary>
public sealed class DepthwiseServingTests
{
    public static TheoryData<string> Models => ["mor_expert_rec3_cache", "mor_expert_rec3_kvshare", "mor_token_rec3_cache", "mor_expert_rec2_mlp_fullnames_bf16"];

    [Theory]
    [MemberData(nameof(Models))]
    public async Task Concurrent_generations_equal_those_alone(string name)
    {
        int seed = Random.Shared.Next();
        GenerationRequest[] requests = Requests(new Random(seed), count: 12, longest: 30);
        using LanguageModel model = Load(name, kvTokens: null);
        int[][] alone = new int[requests.Length][];
        for (int i = 0; i < requests.Length; i++)
        {
            alone[i] = await IdsAsync(model, requests[i]);
        }
        int[][] together = await Task.WhenAll(requests.Select(request => IdsAsync(model, request)));
        for (int i = 0; i < requests.Length; i++)
        {
            Assert.True(alone[i].AsSpan().SequenceEqual(together[i]), $"seed {seed}, request {i}: {string.Join(' ', alone[i])} | {string.Join(' ', together[i])}");
        }
    }

    [Theory]
    [MemberData(nameof(Models))]
    public async Task Sequences_that_run_out_of_pages_go_on_with_the_same_tokens(string name)
    {
        // One request fits whatever its tokens do; many are admitted by what they are expected to need, and some must give their pages back.
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        GenerationRequest[] requests = [.. Requests(random, count: 8, longest: 5).Select(static request => request with { MaxTokens = 60 })];
        using LanguageModel roomy = Load(name, kvTokens: null), tight = Load(name, kvTokens: 72);
        int[][] expected = await Task.WhenAll(requests.Select(request => IdsAsync(roomy, request)));
        int[][] actual = await Task.WhenAll(requests.Select(request => IdsAsync(tight, request)));
        Assert.Equal(0, roomy.Preemptions);
        // Where every token fills every slot, two sequences are admitted and do not both fit to their ends; elsewhere routing decides.
        Assert.True(tight.Preemptions > 0 || name != "mor_expert_rec3_kvshare", $"seed {seed}: nobody had to give pages back");
        for (int i = 0; i < requests.Length; i++)
        {
            Assert.True(expected[i].AsSpan().SequenceEqual(actual[i]), $"seed {seed}, request {i}: {string.Join(' ', expected[i])} | {string.Join(' ', actual[i])}");
        }
    }

    [Fact]
    public async Task A_long_prompt_does_not_stop_those_who_decode()
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        using LanguageModel model = Load("mor_expert_rec3_cache", kvTokens: null);
        GenerationRequest prompt = new() { PromptIds = Ids(random, 100), MaxTokens = 1, Sampling = SamplingOptions.Greedy, IgnoreEndOfSequence = true };
        GenerationRequest steady = new() { PromptIds = Ids(random, 2), MaxTokens = 60, Sampling = SamplingOptions.Greedy, IgnoreEndOfSequence = true };
        int[] alone = await IdsAsync(model, steady);
        Task<int[]>[] crowd = [.. Enumerable.Range(0, 6).Select(_ => IdsAsync(model, prompt))];
        Assert.Equal(alone, await IdsAsync(model, steady));
        int[][] answers = await Task.WhenAll(crowd);
        Assert.All(answers, answer => Assert.Equal(answers[0], answer));
    }

    [Fact]
    public async Task A_cancelled_generation_leaves_nothing_inside()
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        using LanguageModel model = Load("mor_token_rec3_cache", kvTokens: 72);
        GenerationRequest request = new() { PromptIds = Ids(random, 20), MaxTokens = 40, Sampling = SamplingOptions.Greedy, IgnoreEndOfSequence = true };
        int[] expected = await IdsAsync(model, request);
        for (int i = 0; i < 20; i++)
        {
            int left = random.Next(1, 5);
            await foreach (GeneratedToken _ in model.GenerateAsync(request))
            {
                if (--left == 0)
                {
                    break;
                }
            }
        }
        Assert.Equal(expected, await IdsAsync(model, request));
    }

    private static LanguageModel Load(string name, long? kvTokens) => LanguageModel.Load(
        Path.Combine(AppContext.BaseDirectory, "Golden", "mor", name),
        new LanguageModelOptions { KvFormat = KvFormat.F32, Threads = 2, PageTokens = 4, MaxRowsPerStep = 24, KvTokens = kvTokens });

    private static GenerationRequest[] Requests(Random random, int count, int longest) =>
    [
        .. Enumerable.Range(0, count).Select(_ => new GenerationRequest
        {
            PromptIds = Ids(random, random.Next(1, longest)),
            MaxTokens = random.Next(1, 40),
            IgnoreEndOfSequence = true,
            Sampling = new SamplingOptions { Temperature = 1, Seed = (ulong)random.Next() },
        }),
    ];

    private static int[] Ids(Random random, int count) => [.. Enumerable.Range(0, count).Select(_ => random.Next(256))];

    private static async Task<int[]> IdsAsync(LanguageModel model, GenerationRequest request)
    {
        List<int> ids = [];
        await foreach (GeneratedToken token in model.GenerateAsync(request))
        {
            ids.Add(token.Id);
        }
        return [.. ids];
    }
}
