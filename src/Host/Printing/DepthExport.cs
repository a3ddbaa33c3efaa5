using System.Text.Json;
using Engine.Checkpoints.Writing;
using Engine.Plans;
using Host.CommandLine;

namespace Host.Printing;

/// <summary>Tokens of one depth.</summary>
/// <param name="Depth">Recursions, from 1.</param>
/// <param name="Tokens">Tokens that went through exactly so many.</param>
/// <param name="Share">Of all tokens that have a depth.</param>
internal sealed record DepthCount(int Depth, int Tokens, double Share)
{
    /// <summary>One entry for every depth, also where no token has it.</summary>
    public static IReadOnlyList<DepthCount> Of(IReadOnlyList<int> depths, int deepest) =>
    [
        .. Enumerable.Range(1, deepest).Select(depth =>
        {
            int tokens = depths.Count(found => found == depth);
            return new DepthCount(depth, tokens, (double)tokens / depths.Count);
        }),
    ];
}

/// <summary>A token of prompt or completion.</summary>
/// <param name="Position">In the sequence, from 0.</param>
/// <param name="Id">Its id.</param>
/// <param name="Text">What it adds to the text; absent where the model has no tokenizer.</param>
/// <param name="Depth">Recursions it went through, from 1; absent for the last token, which was not fed.</param>
internal sealed record DepthToken(int Position, int Id, string? Text, int? Depth);

/// <summary>What a KV slot holds at the end.</summary>
/// <param name="Slot">Its number.</param>
/// <param name="Depth">The depth that fills it; absent where every token does, because it is outside the recursion.</param>
/// <param name="Tokens">Tokens in it.</param>
/// <param name="Bytes">Their keys and values.</param>
internal sealed record DepthSlot(int Slot, int? Depth, int Tokens, long Bytes);

/// <summary>What <c>generate --depth-out</c> writes.</summary>
/// <param name="PromptTokens">How many of the tokens are the prompt.</param>
/// <param name="Depths">Recursions of the model.</param>
/// <param name="MeanDepth">Of the tokens that have one.</param>
/// <param name="Histogram">One entry for every depth.</param>
/// <param name="Tokens">Prompt and completion, in order.</param>
/// <param name="KvSlots">Caches and what is in them.</param>
internal sealed record DepthExport(
    int PromptTokens,
    int Depths,
    double MeanDepth,
    IReadOnlyList<DepthCount> Histogram,
    IReadOnlyList<DepthToken> Tokens,
    IReadOnlyList<DepthSlot> KvSlots)
{
    /// <summary>Puts together what is known at the end of a generation.</summary>
    /// <param name="plan">A model that routes tokens to depths.</param>
    /// <param name="slotBytesPerToken">Bytes of a token in one KV slot.</param>
    /// <param name="texts">Texts of the sequence's tokens, at its beginning; null where the model has no tokenizer.</param>
    /// <param name="promptIds">The prompt.</param>
    /// <param name="ids">What was generated.</param>
    /// <param name="depths">[prompt + generated − 1].</param>
    public static DepthExport Create(
        ModelPlan plan, long slotBytesPerToken, TokenTexts? texts, IReadOnlyList<int> promptIds, IReadOnlyList<int> ids,
        IReadOnlyList<int> depths)
    {
        int deepest = plan.Layers.Recursion!.Depths;
        DepthToken[] tokens =
        [
            .. promptIds.Concat(ids).Select((id, position) =>
                new DepthToken(position, id, texts?.Append(id), position < depths.Count ? depths[position] : null)),
        ];
        tokens[^1] = tokens[^1] with { Text = texts is null ? null : tokens[^1].Text + texts.Flush() };
        return new DepthExport(
            promptIds.Count, deepest, depths.Average(), DepthCount.Of(depths, deepest), tokens, Slots(plan.Layers, slotBytesPerToken, depths));
    }

    /// <summary>Writes the file completely or not at all.</summary>
    /// <exception cref="Engine.EngineException">It cannot be written.</exception>
    public void Write(string path, CancellationToken cancellationToken) =>
        AtomicFile.Write(path, stream => Terminal.WriteJson(stream, this, HostJson.Default.DepthExport), cancellationToken);

    /// <summary>A slot holds the tokens that reached the step that writes it.</summary>
    private static List<DepthSlot> Slots(LayerMap layers, long slotBytesPerToken, IReadOnlyList<int> depths)
    {
        RecursionPlan recursion = layers.Recursion!;
        List<DepthSlot> slots = [];
        for (int i = 0; i < layers.Steps.Length; i++)
        {
            if (!layers.Steps[i].WritesKv)
            {
                continue;
            }
            int? depth = i >= recursion.FirstStep && i < recursion.EndStep ? (i - recursion.FirstStep) / recursion.StepsPerDepth + 1 : null;
            int tokens = depths.Count(reached => depth is null || reached >= depth);
            slots.Add(new DepthSlot(layers.Steps[i].KvSlot, depth, tokens, tokens * slotBytesPerToken));
        }
        return [.. slots.OrderBy(static slot => slot.Slot)];
    }
}
