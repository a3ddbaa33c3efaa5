using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Reference;

/// <summary>Activations of the reference: double precision, [capacity, width].</summary>
public sealed class ReferenceActivations(int capacity, int width) : Activations(capacity, width)
{
    /// <summary>All values, row-major.</summary>
    public double[] Values { get; } = new double[(long)capacity * width];

    /// <summary>One row.</summary>
    public Span<double> Row(int row) => Values.AsSpan(row * Width, Width);

    /// <inheritdoc/>
    public override void Dispose()
    {
    }
}

/// <summary>
/// Every operation in plain loops over doubles, to be read beside the papers: the oracle for kernels and models. Only what a format rounds is
/// rounded (weights when they are decoded, keys and values when they are stored). Slow by intent.
/// </summary>
public sealed partial class ReferenceBackend : IBackend
{
    private StepPlan? step;
    private RowSet? selected;
    private ReferenceKv? kv;

    /// <inheritdoc/>
    public string Description => "reference (double precision)";

    private StepPlan Step => step ?? throw new InvalidOperationException("No step has begun.");

    private RowSet Selected => selected ?? throw new InvalidOperationException("No rows are selected.");

    private ReferenceKv Kv => kv ?? throw new InvalidOperationException("No step has begun.");

    /// <inheritdoc/>
    public DeviceWeights LoadLinear(LinearPlan plan, Checkpoint checkpoint) => new ReferenceLinear(plan, checkpoint);

    /// <inheritdoc/>
    public DeviceWeights LoadHeads(HeadLinearPlan plan, Checkpoint checkpoint) => new ReferenceHeads(plan, checkpoint);

    /// <inheritdoc/>
    public DeviceWeights LoadEmbedding(EmbeddingPlan plan, int hiddenSize, Checkpoint checkpoint, LinearPlan headPlan, DeviceWeights head) =>
        new ReferenceEmbedding(plan, hiddenSize, checkpoint);

    /// <inheritdoc/>
    public DeviceWeights LoadNorm(NormPlan plan, int width, Checkpoint checkpoint) => new ReferenceNorm(plan, width, checkpoint);

    /// <inheritdoc/>
    public DeviceWeights LoadRope(RopePlan plan, int contextLength) => new ReferenceRope(plan, contextLength);

    /// <inheritdoc/>
    public DeviceWeights LoadPrefixes(
        IReadOnlyList<(StreamPrefixPlan Plan, int Streams, int Tokens)?> prefixes, KvSlotPlan shape, Checkpoint checkpoint) =>
        new ReferencePrefixes(prefixes, shape, checkpoint);

    /// <inheritdoc/>
    public Activations Allocate(int capacity, int width) => new ReferenceActivations(capacity, width);

    /// <inheritdoc/>
    public KvStorage AllocateKv(IReadOnlyList<KvSlotPlan> slots, KvFormat format, int pageCount, int pageTokens)
    {
        foreach (KvSlotPlan slot in slots)
        {
            if (format == KvFormat.Q8_0 && slot.HeadDim % 32 != 0)
            {
                throw new EngineException($"a Q8_0 cache needs a head dimension that is a multiple of 32, found {slot.HeadDim}");
            }
        }
        return new ReferenceKv(slots, format, pageCount, pageTokens);
    }

    /// <inheritdoc/>
    public void BeginStep(StepPlan step, KvStorage kv)
    {
        this.step = step;
        this.kv = (ReferenceKv)kv;
    }

    /// <inheritdoc/>
    public void SelectRows(RowSet rows) => selected = rows;

    /// <inheritdoc/>
    public void EndStep()
    {
        selected = null;
        step = null;
        kv = null;
    }

    /// <inheritdoc/>
    public void Embed(DeviceWeights embedding, Activations output)
    {
        var weights = (ReferenceEmbedding)embedding;
        var destination = Check(output, weights.HiddenSize);
        CheckStepRows(output);
        var token = new float[weights.HiddenSize];
        var position = new float[weights.HiddenSize];
        for (int r = 0; r < Selected.Rows.Length; r++)
        {
            Row row = Selected.Rows[r];
            if ((uint)row.Token >= (uint)weights.Tokens.Rows)
            {
                throw new EngineException($"token {row.Token} is not in the vocabulary of {weights.Tokens.Rows}");
            }
            weights.Tokens.ReadRow(row.Token, token);
            if (weights.Positions is not null)
            {
                if ((uint)row.Position >= (uint)weights.Positions.Rows)
                {
                    throw new EngineException($"position {row.Position} is past the {weights.Positions.Rows} learned positions");
                }
                weights.Positions.ReadRow(row.Position, position);
            }
            for (int i = 0; i < token.Length; i++)
            {
                destination.Row(r)[i] = (double)token[i] + position[i];
            }
        }
    }

    /// <inheritdoc/>
    public void Normalize(DeviceWeights norm, Activations input, Activations output)
    {
        var weights = (ReferenceNorm)norm;
        var source = Check(input, weights.Gain.Length);
        var destination = Check(output, weights.Gain.Length, input.Rows);
        for (int r = 0; r < input.Rows; r++)
        {
            source.Row(r).CopyTo(destination.Row(r));
            Normalize(weights, destination.Row(r));
        }
    }

    /// <summary>RMS norm (Zhang and Sennrich 2019, equation 4) or layer norm (Ba et al. 2016, equation 4) of one row, in place.</summary>
    private static void Normalize(ReferenceNorm norm, Span<double> x)
    {
        double mean = 0;
        if (norm.Plan.Kind == NormKind.Layer)
        {
            foreach (double value in x)
            {
                mean += value / x.Length;
            }
        }
        double meanOfSquares = 0;
        foreach (double value in x)
        {
            meanOfSquares += (value - mean) * (value - mean) / x.Length;
        }
        double factor = 1 / Math.Sqrt(meanOfSquares + norm.Plan.Epsilon);
        for (int i = 0; i < x.Length; i++)
        {
            x[i] = (x[i] - mean) * factor * norm.Gain[i] + (norm.Bias?[i] ?? 0);
        }
    }

    /// <inheritdoc/>
    public void Multiply(DeviceWeights linear, Activations input, Activations output, bool accumulate = false)
    {
        var weights = (ReferenceLinear)linear;
        var source = Check(input, weights.Plan.Inputs);
        var destination = Check(output, weights.Plan.Outputs, input.Rows);
        int firstOutput = 0;
        foreach ((ReferenceMatrix weight, float[]? bias) in weights.Parts)
        {
            int offset = firstOutput;
            Parallel.For(0, weight.Rows, () => new float[weights.Plan.Inputs], (o, _, w) =>
            {
                weight.ReadRow(o, w);
                for (int r = 0; r < source.Rows; r++)
                {
                    Span<double> x = source.Row(r);
                    double sum = bias?[o] ?? 0;
                    for (int i = 0; i < x.Length; i++)
                    {
                        sum += w[i] * x[i];
                    }
                    ref double y = ref destination.Row(r)[offset + o];
                    y = accumulate ? y + sum : sum;
                }
                return w;
            }, static _ => { });
            firstOutput += weight.Rows;
        }
    }

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

    /// <summary>Softmax in place; <paramref name="sink"/> counts in the sum as one more element that is left out of the result.</summary>
    private static void Softmax(Span<double> x, double sink = double.NegativeInfinity)
    {
        double largest = sink;
        foreach (double value in x)
        {
            largest = Math.Max(largest, value);
        }
        double sum = Math.Exp(sink - largest);
        foreach (ref double value in x)
        {
            value = Math.Exp(value - largest);
            sum += value;
        }
        foreach (ref double value in x)
        {
            value /= sum;
        }
    }

    /// <inheritdoc/>
    public void Activate(Activation activation, Activations input, Activations output, SwiGluClamp? clamp = null)
    {
        bool gated = activation.IsGated();
        clamp ??= SwiGluClamp.Default;
        double limit = clamp.Limit, alpha = clamp.Alpha;
        var source = Check(input, gated ? 2 * output.Width : output.Width);
        var destination = Check(output, output.Width, input.Rows);
        for (int r = 0; r < input.Rows; r++)
        {
            for (int i = 0; i < output.Width; i++)
            {
                double x = source.Row(r)[i];
                double up = gated ? source.Row(r)[output.Width + i] : 1;
                if (activation == Activation.ClampedSwiGlu)
                {
                    (x, up) = (Math.Min(x, limit), Math.Clamp(up, -limit, limit) + 1);
                }
                double y = activation switch
                {
                    Activation.ClampedSwiGlu => x / (1 + Math.Exp(-alpha * x)),
                    Activation.SwiGlu or Activation.Silu => SpecialFunctions.Silu(x),
                    Activation.Gelu => SpecialFunctions.Gelu(x),
                    Activation.GeluTanh or Activation.GeGluTanh => SpecialFunctions.GeluTanh(x),
                    _ => throw new EngineException($"unknown activation {activation}"),
                };
                destination.Row(r)[i] = y * up;
            }
        }
    }

    /// <inheritdoc/>
    public void Gather(Activations input, ReadOnlySpan<int> rows, Activations output)
    {
        output.Rows = rows.Length;
        var source = Check(input, output.Width);
        var destination = Check(output, input.Width);
        for (int i = 0; i < rows.Length; i++)
        {
            if ((uint)rows[i] >= (uint)input.Rows)
            {
                throw new EngineException($"row {rows[i]} was asked for, there are {input.Rows}");
            }
            source.Row(rows[i]).CopyTo(destination.Row(i));
        }
    }

    /// <inheritdoc/>
    public void Scatter(Activations input, ReadOnlySpan<int> rows, Activations output)
    {
        var source = Check(input, output.Width, rows.Length);
        var destination = Check(output, input.Width);
        for (int i = 0; i < rows.Length; i++)
        {
            source.Row(i).CopyTo(destination.Row(rows[i]));
        }
    }

    /// <inheritdoc/>
    public void ScatterAdd(Activations input, ReadOnlySpan<float> weights, ReadOnlySpan<int> rows, Activations output)
    {
        var source = Check(input, output.Width, rows.Length);
        var destination = Check(output, input.Width);
        for (int i = 0; i < rows.Length; i++)
        {
            for (int j = 0; j < input.Width; j++)
            {
                destination.Row(rows[i])[j] += (double)weights[i] * source.Row(i)[j];
            }
        }
    }

    /// <inheritdoc/>
    public void Clear(Activations activations) => Check(activations, activations.Width).Values.AsSpan(0, activations.Rows * activations.Width).Clear();

    /// <inheritdoc/>
    public void Scale(Activations activations, float factor)
    {
        var values = Check(activations, activations.Width);
        for (int i = 0; i < activations.Rows * activations.Width; i++)
        {
            values.Values[i] *= factor;
        }
    }

    /// <inheritdoc/>
    public void Interleave(Activations input, int streams, Activations output)
    {
        var source = Check(input, input.Width, output.Rows * streams);
        var destination = Check(output, input.Width * streams);
        for (int row = 0; row < output.Rows; row++)
        {
            for (int i = 0; i < input.Width * streams; i++)
            {
                destination.Row(row)[i] = source.Row(row * streams + i % streams)[i / streams];
            }
        }
    }

    /// <summary>Parallel scaling's gate (Chen et al. 2025; the official code smooths at inference too).</summary>
    public void MixStreams(Activations gate, Activations input, float smoothing, Activations output)
    {
        int streams = gate.Width;
        var weights = Check(gate, streams, output.Rows);
        var source = Check(input, output.Width, output.Rows * streams);
        var destination = Check(output, input.Width);
        for (int row = 0; row < output.Rows; row++)
        {
            Softmax(weights.Row(row));
            destination.Row(row).Clear();
            for (int stream = 0; stream < streams; stream++)
            {
                ref double w = ref weights.Row(row)[stream];
                w = w * (1 - smoothing) + (double)smoothing / streams;
                for (int i = 0; i < input.Width; i++)
                {
                    destination.Row(row)[i] += w * source.Row(row * streams + stream)[i];
                }
            }
        }
    }

    /// <inheritdoc/>
    public void ForEach(int count, Action<int> body)
    {
        for (int i = 0; i < count; i++)
        {
            body(i);
        }
    }

    /// <inheritdoc/>
    public void ReadRows(Activations source, Span<float> destination)
    {
        var values = Check(source, source.Width);
        for (int i = 0; i < source.Rows * source.Width; i++)
        {
            destination[i] = (float)values.Values[i];
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
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

    private void CheckStepRows(Activations activations)
    {
        if (activations.Rows != Selected.Rows.Length)
        {
            throw new EngineException($"{Selected.Rows.Length} rows are selected, the activations have {activations.Rows}");
        }
    }

    private static ReferenceActivations Check(Activations activations, int width, int? rows = null)
    {
        if (activations.Width != width || activations.Rows > activations.Capacity || (rows ?? activations.Rows) != activations.Rows)
        {
            throw new EngineException(
                $"expected activations [{rows ?? activations.Capacity}, {width}], found [{activations.Rows}, {activations.Width}]");
        }
        return (ReferenceActivations)activations;
    }
}
