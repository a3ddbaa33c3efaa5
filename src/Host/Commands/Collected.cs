using System.Text;
using Engine.Generation;

namespace Host.Commands;

/// <summary>A generation that is over, or on its way.</summary>
/// <param name="promptIds">The prompt as the model saw it.</param>
internal sealed class Collected(int[] promptIds)
{
    private readonly List<int> ids = [];
    private readonly List<LogprobsResult> logprobs = [];
    private readonly List<IReadOnlyList<float>> streamWeights = [];
    private readonly StringBuilder text = new();

    /// <summary>The prompt as the model saw it.</summary>
    public IReadOnlyList<int> PromptIds => promptIds;

    /// <summary>The tokens so far.</summary>
    public IReadOnlyList<int> Ids => ids;

    /// <summary>The last of them.</summary>
    public GeneratedToken Last { get; private set; }

    /// <summary>Takes the next token.</summary>
    public void Add(in GeneratedToken token)
    {
        ids.Add(token.Id);
        text.Append(token.Text);
        logprobs.Add(new LogprobsResult(token.Id, token.Logprob, [.. token.Top]));
        streamWeights.Add(token.StreamWeights);
        Last = token;
    }

    /// <summary>What <c>--json</c> prints.</summary>
    public GenerateResult ToResult(GenerationRequest request, TimeSpan loadTime)
    {
        Usage usage = Last.Usage!;
        return new GenerateResult(
            promptIds, ids, text.ToString(), GenerateResult.NameOf(Last.Finish), UsageResult.From(usage), TimingsResult.From(usage, loadTime),
            request.Sampling.Seed,
            request.Sampling.Logprobs > 0 ? logprobs : null,
            usage.Depths.Count > 0 ? usage.Depths : null,
            request.ReportStreamWeights ? streamWeights : null);
    }
}
