using Engine.Execution;
using Engine.Plans;

namespace Engine.Reference;

/// <summary>Attention: maps of heads, norms of heads, rotation, the cache, and the sum over what a row sees.</summary>
public sealed partial class ReferenceBackend
{
    /// <inheritdoc/>
    public void MultiplyHeads(DeviceWeights heads, Activations input, Activations? tail, Activations output)
    {
        var weights = (ReferenceHeads)heads;
        HeadLinearPlan plan = weights.Plan;
        var source = Check(input, plan.InputWidth);
        var destination = Check(output, plan.OutputWidth + (tail?.Width ?? 0), input.Rows);
        var w = new float[plan.Inputs];
        for (int r = 0; r < input.Rows; r++)
        {
            for (int head = 0; head < plan.Heads; head++)
            {
                Span<double> x = source.Row(r).Slice(head * (plan.Inputs + plan.Carried), plan.Inputs + plan.Carried);
                Span<double> y = destination.Row(r).Slice(head * (plan.Outputs + plan.Carried), plan.Outputs + plan.Carried);
                for (int o = 0; o < plan.Outputs; o++)
                {
                    y[o] = 0;
                    for (int i = 0; i < plan.Inputs; i++)
                    {
                        y[o] += weights.Weight(head, o, i) * x[i];
                    }
                }
                x[plan.Inputs..].CopyTo(y[plan.Outputs..]);
            }
            if (tail is not null)
            {
                Check(tail, tail.Width, input.Rows).Row(r).CopyTo(destination.Row(r)[plan.OutputWidth..]);
            }
        }
    }

    /// <inheritdoc/>
    public void NormalizeHeads(AttentionPlan attention, DeviceWeights? queryNorm, DeviceWeights? keyNorm, Activations qkv)
    {
        var rows = Check(qkv, attention.QkvWidth);
        for (int r = 0; r < qkv.Rows; r++)
        {
            Span<double> row = rows.Row(r);
            int queries = attention.Heads * attention.HeadDim, keys = attention.KvHeads * attention.ValueDim;
            NormalizeParts(queryNorm, row[..queries], attention.QueryNormWidth);
            NormalizeParts(keyNorm, row.Slice(queries, keys), attention.KeyNormWidth);
            if (attention.ClipQkv is { } limit)
            {
                foreach (ref double value in row)
                {
                    value = Math.Clamp(value, -limit, limit);
                }
            }
        }

        static void NormalizeParts(DeviceWeights? weights, Span<double> vectors, int width)
        {
            for (int first = 0; weights is ReferenceNorm norm && first < vectors.Length; first += width)
            {
                Normalize(norm, vectors.Slice(first, width));
            }
        }
    }

    /// <inheritdoc/>
    public void RotateAndAppend(AttentionPlan attention, DeviceWeights? rope, Activations qkv, int slot)
    {
        var rows = Check(qkv, attention.QkvWidth);
        CheckStepRows(qkv);
        CheckSlot(attention, slot);
        for (int r = 0; r < Selected.Rows.Length; r++)
        {
            Row row = Selected.Rows[r];
            if (rope is ReferenceRope rotation)
            {
                for (int head = 0; head < attention.Heads + (RunOf(r).WritesKv ? attention.KvHeads : 0); head++)
                {
                    Rotate(rotation, row.Position, Head(rows, r, head, attention)[attention.RopeStart..]);
                }
            }
            if (!RunOf(r).WritesKv)
            {
                continue;
            }
            int index = IndexInSlot(r, slot);
            for (int kvHead = 0; kvHead < attention.KvHeads; kvHead++)
            {
                Append(Head(rows, r, attention.Heads + kvHead, attention), Stored(r, slot, value: false, index, kvHead));
                if (attention.Latent is null)
                {
                    Append(Head(rows, r, attention.Heads + attention.KvHeads + kvHead, attention), Stored(r, slot, value: true, index, kvHead));
                }
            }
        }
    }

    /// <summary>Turns each pair (a, b) of a head by position × frequency (Su et al. 2021, equation 34).</summary>
    private static void Rotate(ReferenceRope rope, int position, Span<double> head)
    {
        RopePlan plan = rope.Plan;
        if ((uint)position >= (uint)rope.ContextLength || plan.Dimensions > head.Length)
        {
            throw new EngineException(
                $"cannot rotate {plan.Dimensions} of {head.Length} elements at position {position}; the context has {rope.ContextLength}");
        }
        int pairs = plan.Dimensions / 2;
        for (int i = 0; i < pairs; i++)
        {
            (int first, int second) = plan.Pairing == RopePairing.Halves ? (i, i + pairs) : (2 * i, 2 * i + 1);
            double angle = position * plan.InverseFrequencies[i];
            double cosine = Math.Cos(angle) * plan.Magnitude, sine = Math.Sin(angle) * plan.Magnitude;
            (head[first], head[second]) = (head[first] * cosine - head[second] * sine, head[first] * sine + head[second] * cosine);
        }
    }

    /// <inheritdoc/>
    public void Attend(AttentionPlan attention, Activations qkv, int slot, DeviceWeights? prefixes, Activations output)
    {
        var rows = Check(qkv, attention.QkvWidth);
        var result = Check(output, attention.Heads * attention.ValueDim, qkv.Rows);
        CheckStepRows(qkv);
        CheckSlot(attention, slot);
        int queriesPerKvHead = attention.Heads / attention.KvHeads;
        for (int r = 0; r < Selected.Rows.Length; r++)
        {
            Track track = Step.Tracks[Selected.Rows[r].Track];
            int last = IndexInSlot(r, slot);
            int first = attention.SlidingWindow is int window ? Math.Max(0, last - window + 1) : 0;
            int prefixTokens = (prefixes as ReferencePrefixes)?.Tokens(track.StreamSet) ?? 0;
            for (int head = 0; head < attention.Heads; head++)
            {
                // One softmax over the prefix and the tokens.
                int kvHead = head / queriesPerKvHead;
                Span<double> query = Head(rows, r, head, attention);
                var weights = new double[prefixTokens + last - first + 1];
                for (int t = 0; t < weights.Length; t++)
                {
                    Span<float> key = Seen(t, value: false);
                    double dot = 0;
                    for (int i = 0; i < key.Length; i++)
                    {
                        dot += query[i] * key[i];
                    }
                    weights[t] = attention.Scale * dot;
                }
                Softmax(weights, attention.Sinks.IsEmpty ? double.NegativeInfinity : attention.Sinks[head]);
                Span<double> mixed = result.Row(r).Slice(head * attention.ValueDim, attention.ValueDim);
                mixed.Clear();
                for (int t = 0; t < weights.Length; t++)
                {
                    Span<float> value = Seen(t, value: true);
                    for (int i = 0; i < value.Length; i++)
                    {
                        mixed[i] += weights[t] * value[i];
                    }
                }

                Span<float> Seen(int t, bool value) => t < prefixTokens
                    ? ((ReferencePrefixes)prefixes!).Head(track.StreamSet, track.Stream, kvHead, t, value)
                    : Stored(r, slot, value, first + t - prefixTokens, kvHead);
            }
        }
    }

    /// <summary>Head h of [q heads | k heads | v heads].</summary>
    private static Span<double> Head(ReferenceActivations qkv, int row, int head, AttentionPlan attention) =>
        qkv.Row(row).Slice(head * attention.HeadDim, attention.HeadDim);

    private RowRun RunOf(int row)
    {
        foreach (RowRun run in Selected.Runs)
        {
            if (row >= run.FirstRow && row < run.FirstRow + run.RowCount)
            {
                return run;
            }
        }
        throw new EngineException($"row {row} is in no run");
    }

    /// <summary>The row's place among the tokens of its track in a slot, which its run shifts.</summary>
    private int IndexInSlot(int row, int slot)
    {
        RowRun run = RunOf(row);
        int shifted = slot + run.SlotShift;
        int length = Step.View(run.Track, shifted).Length + Step.Appended(run.Track, shifted);
        int index = run.WritesKv ? length + row - run.FirstRow : Selected.Rows[row].Position;
        return run.WritesKv || index < length ? index : throw new EngineException($"token {index} is not among the {length} of slot {shifted}");
    }

    private Span<float> Stored(int row, int slot, bool value, int index, int kvHead)
    {
        RowRun run = RunOf(row);
        KvView view = Step.View(run.Track, slot + run.SlotShift);
        if (index / Kv.PageTokens >= view.PageCount)
        {
            throw new EngineException($"token {index} is past the {view.PageCount} pages of track {run.Track} in slot {slot + run.SlotShift}");
        }
        int page = Step.Pages[view.FirstPage + index / Kv.PageTokens];
        return Kv.Head(page, slot, value, index % Kv.PageTokens, kvHead);
    }

    private void Append(Span<double> source, Span<float> stored)
    {
        for (int i = 0; i < source.Length; i++)
        {
            stored[i] = (float)source[i];
        }
        Kv.Round(stored);
    }

    private void CheckSlot(AttentionPlan attention, int slot)
    {
        if ((uint)slot >= (uint)Kv.Slots.Count || Kv.Slots[slot] with { SharedByStreams = false } != attention.KvSlot)
        {
            throw new EngineException($"slot {slot} does not hold {attention.KvHeads} heads of {attention.HeadDim}");
        }
        if (attention.KvHeads <= 0 || attention.Heads % attention.KvHeads != 0)
        {
            throw new EngineException($"{attention.Heads} query heads are not a multiple of {attention.KvHeads} key heads");
        }
    }
}
