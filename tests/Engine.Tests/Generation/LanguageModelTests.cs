using System.Text;
using Engine.Execution;
using Engine.Generation;
using Engine.Sampling;

namespace Engine.Tests.Generation;

/// <summary>The front door on the model that the repository ships.</summary>
public sealed class LanguageModelTests : IDisposable
{
    private readonly LanguageModel model = LanguageModel.Load(ModelHarness.ShippedModel, new LanguageModelOptions { Threads = 2 });

    public void Dispose() => model.Dispose();

    [Fact]
    public async Task The_same_seed_gives_the_same_text_whatever_runs_beside_it()
    {
        string[] prompts = ["Once upon a time", "The little dog", "One day", "A girl named"];
        string[] alone = new string[prompts.Length];
        for (int i = 0; i < prompts.Length; i++)
        {
            alone[i] = await TextOf(prompts[i], seed: (ulong)i, maxTokens: 40 + 10 * i);
        }
        string[] together = await Task.WhenAll(prompts.Select((prompt, i) => TextOf(prompt, (ulong)i, 40 + 10 * i)));
        Assert.Equal(alone, together);
        Assert.Equal(prompts.Length, alone.Distinct().Count());
    }

    [Fact]
    public async Task Seeds_change_the_text_and_greedy_does_not_care()
    {
        string[] seeded = await Task.WhenAll(Enumerable.Range(0, 4).Select(seed => TextOf("Once upon a time", (ulong)seed, 30)));
        Assert.True(seeded.Distinct().Count() > 1);
        string[] greedy = await Task.WhenAll(Enumerable.Range(0, 4).Select(seed => TextOf("Once upon a time", (ulong)seed, 30, temperature: 0)));
        Assert.Single(greedy.Distinct());
    }

    [Fact]
    public async Task Pieces_join_to_the_decoded_ids_and_usage_counts_them()
    {
        StringBuilder text = new();
        List<int> ids = [];
        GeneratedToken last = default;
        await foreach (GeneratedToken token in model.GenerateAsync(Request("Once upon a time", 3, 50)))
        {
            Assert.Null(last.Finish);
            text.Append(token.Text);
            ids.Add(token.Id);
            last = token;
        }
        Assert.NotNull(last.Finish);
        Usage usage = last.Usage!;
        Assert.Equal(ids.Count, usage.CompletionTokens);
        Assert.Equal(model.Tokenizer.Encode("Once upon a time").Length, usage.PromptTokens);
        int[] visible = last.Finish == FinishReason.EndOfSequence ? [.. ids[..^1]] : [.. ids];
        Assert.Equal(model.Tokenizer.Decode(visible, skipSpecial: true), text.ToString());
    }

    [Fact]
    public async Task A_stop_string_ends_the_text_before_itself()
    {
        string free = await TextOf("Once upon a time", 5, 60);
        string stop = free.Substring(free.Length / 2, 3);
        GenerationRequest request = Request("Once upon a time", 5, 60) with { Stop = [stop] };
        (string text, GeneratedToken last) = await Collect(request);
        Assert.Equal(FinishReason.StopString, last.Finish);
        Assert.Equal(free[..free.IndexOf(stop, StringComparison.Ordinal)], text);
    }

    [Fact]
    public async Task A_repeated_prompt_is_found_in_the_prefix_cache_and_changes_nothing()
    {
        string prompt = string.Concat(Enumerable.Repeat("Once upon a time there was a little dog. ", 8));
        (string first, GeneratedToken one) = await Collect(Request(prompt, 1, 20));
        (string second, GeneratedToken two) = await Collect(Request(prompt, 1, 20));
        Assert.Equal(first, second);
        Assert.Equal(0, one.Usage!.CachedTokens);
        Assert.True(two.Usage!.CachedTokens > 0);
    }

    [Fact]
    public async Task Cancelling_throws_and_leaves_the_model_usable()
    {
        using CancellationTokenSource cancel = new();
        int seen = 0;
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            GenerationRequest endless = Request("Once upon a time", 1, 400) with { IgnoreEndOfSequence = true };
            await foreach (GeneratedToken token in model.GenerateAsync(endless, cancel.Token))
            {
                if (++seen == 3)
                {
                    await cancel.CancelAsync();
                }
            }
        });
        Assert.Equal(3, seen);
        Assert.NotEmpty(await TextOf("Once upon a time", 1, 10));
    }

    [Fact]
    public void Cancelling_a_load_leaves_nothing_open()
    {
        using CancellationTokenSource cancel = new();
        int reports = 0;
        LanguageModelOptions options = new()
        {
            Progress = new Report(_ =>
            {
                reports++;
                cancel.Cancel();
            }),
        };
        Assert.Throws<OperationCanceledException>(() => LanguageModel.Load(ModelHarness.ShippedModel, options, cancel.Token));
        Assert.Equal(1, reports);
    }

    [Fact]
    public async Task Leaving_the_loop_early_frees_the_pages_for_the_next()
    {
        using LanguageModel small = LanguageModel.Load(
            ModelHarness.ShippedModel, new LanguageModelOptions { KvTokens = 128, ContextLength = 128, PageTokens = 16 });
        for (int i = 0; i < 10; i++)
        {
            // Each asks for the whole pool: the next starts only because the one before has let go.
            await foreach (GeneratedToken token in small.GenerateAsync(Request("One day", 1, 100) with { IgnoreEndOfSequence = true }))
            {
                break;
            }
        }
        Task<(string, GeneratedToken)>[] queued = [.. Enumerable.Range(0, 4).Select(i =>
            Collect(small, Request("One day", (ulong)i, 100) with { IgnoreEndOfSequence = true }))];
        foreach ((string text, GeneratedToken last) in await Task.WhenAll(queued))
        {
            Assert.Equal(100, last.Usage!.CompletionTokens);
        }
    }

    [Fact]
    public async Task Disposing_ends_what_is_running()
    {
        LanguageModel disposed;
        Exception? failure;
        int attempt = 0;
        do
        {
            disposed = LanguageModel.Load(ModelHarness.ShippedModel);
            failure = await Record.ExceptionAsync(async () =>
            {
                await foreach (GeneratedToken token in disposed.GenerateAsync(Request("Once", 1, 400) with { IgnoreEndOfSequence = true }))
                {
                    disposed.Dispose();
                }
            });
        }
        while (failure is null && ++attempt < 20); // On a busy machine all may have been generated before the reader came to the first.
        Assert.IsType<ObjectDisposedException>(failure);
        Assert.Throws<ObjectDisposedException>(() => disposed.GenerateAsync(Request("Once", 1, 4)));
    }

    [Fact]
    public async Task A_logits_session_outlived_by_its_model_says_so()
    {
        LanguageModel disposed = LanguageModel.Load(ModelHarness.ShippedModel);
        using LogitsSession session = disposed.CreateLogitsSession();
        Task feeding = Task.Run(() =>
        {
            while (session.Length < disposed.ContextLength - 8)
            {
                session.Feed(5, 6, 7, 8, 9, 10, 11, 12);
            }
        });
        while (session.Length == 0 && !feeding.IsCompleted)
        {
            await Task.Yield();
        }
        disposed.Dispose();
        await Task.WhenAny(feeding);
        Assert.True(feeding.Exception is null or { InnerException: ObjectDisposedException }, $"{feeding.Exception}");
        Assert.Throws<ObjectDisposedException>(() => session.Feed(5));
    }

    [Fact]
    public void Requests_that_do_not_fit_are_refused_before_anything_runs()
    {
        int vocabulary = model.Plan.VocabularySize;
        Refused("neither a prompt nor ids", new GenerationRequest());
        Refused("not both", new GenerationRequest { Prompt = "a", PromptIds = [1] });
        Refused("token id", new GenerationRequest { PromptIds = [vocabulary] });
        Refused("token id", new GenerationRequest { PromptIds = [-1] });
        Refused("no tokens", new GenerationRequest { PromptIds = [] });
        Refused("context", new GenerationRequest { PromptIds = [.. Enumerable.Repeat(1, model.ContextLength)] });
        Refused("at least 1", new GenerationRequest { Prompt = "a", MaxTokens = 0 });
        Refused("stop string 1", new GenerationRequest { Prompt = "a", Stop = ["b", ""] });
        Refused("Temperature", new GenerationRequest { Prompt = "a", Sampling = new SamplingOptions { Temperature = -1 } });
        Refused("TopP", new GenerationRequest { Prompt = "a", Sampling = new SamplingOptions { TopP = 2 } });

        void Refused(string expected, GenerationRequest request) =>
            Assert.Contains(expected, Assert.Throws<EngineException>(() => model.GenerateAsync(request)).Message, StringComparison.OrdinalIgnoreCase);
    }

    [Fact]
    public async Task A_prompt_longer_than_a_step_is_done_in_chunks()
    {
        int[] prompt = [.. Enumerable.Range(0, 150).Select(i => 5 + i * 7 % (model.Plan.VocabularySize - 10))];
        using LanguageModel chunked = LanguageModel.Load(ModelHarness.ShippedModel, new LanguageModelOptions { MaxRowsPerStep = 16 });
        GenerationRequest request = new() { PromptIds = prompt, MaxTokens = 20, Sampling = new SamplingOptions { Temperature = 0 } };
        Assert.Equal((await Collect(model, request)).Text, (await Collect(chunked, request)).Text);
    }

    [Fact]
    public void A_logits_session_agrees_with_itself_in_any_chunks()
    {
        int[] ids = model.Tokenizer.Encode("Once upon a time there was a little dog.");
        using LogitsSession whole = model.CreateLogitsSession();
        float[] expected = whole.Feed(ids);
        using LogitsSession pieces = model.CreateLogitsSession();
        float[] actual = [];
        foreach (int id in ids)
        {
            actual = pieces.Feed(id);
        }
        Assert.Equal(expected, actual);
    }

    private sealed class Report(Action<LoadProgress> told) : IProgress<LoadProgress>
    {
        void IProgress<LoadProgress>.Report(LoadProgress value) => told(value);
    }

    private static GenerationRequest Request(string prompt, ulong seed, int maxTokens, float temperature = 0.8f) => new()
    {
        Prompt = prompt,
        MaxTokens = maxTokens,
        Sampling = new SamplingOptions { Temperature = temperature, Seed = seed },
    };

    private async Task<string> TextOf(string prompt, ulong seed, int maxTokens, float temperature = 0.8f) =>
        (await Collect(Request(prompt, seed, maxTokens, temperature))).Text;

    private Task<(string Text, GeneratedToken Last)> Collect(GenerationRequest request) => Collect(model, request);

    private static async Task<(string Text, GeneratedToken Last)> Collect(LanguageModel model, GenerationRequest request)
    {
        StringBuilder text = new();
        GeneratedToken last = default;
        await foreach (GeneratedToken token in model.GenerateAsync(request))
        {
            text.Append(token.Text);
            last = token;
        }
        return (text.ToString(), last);
    }
}
