using System.Diagnostics;
using Engine.Execution;
using Engine.Sampling;
using Engine.Text;

namespace Engine.Generation;

/// <summary>A request on its way: its sequence, its sampler, its text, and the stream its reader waits on. Driven by <see cref="GenerationLoop"/>.</summary>
internal sealed class ActiveGeneration
{
    private readonly Tokenizer? tokenizer;
    private readonly Detokenizer? detokenizer;
    private readonly StopStrings? stop;
    private readonly bool ignoreEnd;
    private readonly bool reportStreams;
    private List<int>? depths;
    private readonly long queuedAt = Stopwatch.GetTimestamp();
    private long startedAt, firstTokenAt;
    private int cachedTokens;

    public ActiveGeneration(ReadOnlySpan<int> prompt, int maxTokens, GenerationRequest request, Tokenizer? tokenizer, int streamSet = 0)
    {
        Prompt = prompt.ToArray();
        MaxTokens = maxTokens;
        StreamSet = streamSet;
        this.tokenizer = tokenizer;
        // After a prompt with text in it, the first word's leading space belongs to the answer.
        bool continues = tokenizer is not null && Prompt.Any(id => id < tokenizer.VocabularySize && !tokenizer.IsSpecial(id));
        detokenizer = tokenizer?.CreateDetokenizer(skipSpecial: true, continues);
        Sampler = new Sampler(request.Sampling);
        stop = request.Stop.Count == 0 ? null : new StopStrings(request.Stop);
        ignoreEnd = request.IgnoreEndOfSequence;
        reportStreams = request.ReportStreamWeights;
    }

    public int[] Prompt { get; }

    public int MaxTokens { get; }

    /// <summary>Index of the set of streams that it asked for.</summary>
    public int StreamSet { get; }

    public Sampler Sampler { get; }

    public TokenStream Stream { get; } = new();

    /// <summary>Set by the reader; the loop then lets go of the sequence.</summary>
    public volatile bool Cancelled;

    public Sequence? Sequence { get; private set; }

    public bool Finished { get; private set; }

    private int Generated => Sequence!.Count - Prompt.Length;

    public void Start(Sequence sequence, int cached)
    {
        Sequence = sequence;
        cachedTokens = cached;
        startedAt = Stopwatch.GetTimestamp();
    }

    /// <summary>Notes how deep a token went.</summary>
    public void NoteDepth(int position, int depth)
    {
        depths ??= [];
        // A sequence that had to start again brings its first tokens again.
        if (position == depths.Count)
        {
            depths.Add(depth);
        }
    }

    /// <summary>Chooses the next token from a row of logits and sends it on.</summary>
    public void Accept(in FinishedRow row, Span<float> logits)
    {
        Sequence sequence = Sequence!;
        SampledToken sampled = Sampler.Sample(logits, sequence.Tokens);
        bool isFirst = Generated == 0;
        if (isFirst)
        {
            firstTokenAt = Stopwatch.GetTimestamp();
        }
        sequence.Append(sampled.Id);

        FinishReason? finish = null;
        string text = "";
        if (!ignoreEnd && tokenizer is not null && tokenizer.EndOfGeneration.Contains(sampled.Id))
        {
            finish = FinishReason.EndOfSequence;
        }
        else if (detokenizer is not null)
        {
            text = detokenizer.Append(sampled.Id);
        }
        if (finish is null && Generated >= MaxTokens)
        {
            finish = FinishReason.Length;
        }
        if (finish is not null && detokenizer is not null)
        {
            string rest = detokenizer.Flush();
            text = rest.Length == 0 ? text : text + rest;
        }
        text = FilterStop(text, ref finish);
        Finished = finish is not null;
        Stream.Write(new GeneratedToken(sampled.Id, text, sampled.Logprob, Sampler.TopLogprobs(), finish, Finished ? MakeUsage() : null)
        {
            Depth = row.Depth,
            PromptDepths = isFirst && depths is not null ? [.. depths] : [],
            StreamWeights = reportStreams ? row.StreamWeights.ToArray() : [],
        });
        if (Finished)
        {
            Stream.Complete();
        }
    }

    /// <summary>Ends the generation with an error.</summary>
    public void Abort(Exception error)
    {
        Finished = true;
        Stream.Complete(error);
    }

    private string FilterStop(string text, ref FinishReason? finish)
    {
        if (stop is null)
        {
            return text;
        }
        string visible = stop.Append(text, out bool matched);
        if (matched)
        {
            finish = FinishReason.StopString;
        }
        else if (finish is not null)
        {
            visible += stop.Flush();
        }
        return visible;
    }

    private Usage MakeUsage() => new(
        Prompt.Length, cachedTokens, Generated,
        Stopwatch.GetElapsedTime(startedAt == 0 ? queuedAt : startedAt, firstTokenAt), Stopwatch.GetElapsedTime(firstTokenAt))
    {
        Depths = depths ?? [],
    };
}
