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
    private static double[] Products(ReferenceMatrix matrix, Span<double> x)
    {
        var row = new float[x.Length];
        var products = new double[matrix.Rows];
        for (int i = 0; i < products.Length; i++)
        {
            matrix.ReadRow(i, row);
            products[i] = Dot(row, x);
        }
        return products;
    }

    private static double Dot(ReadOnlySpan<float> weights, ReadOnlySpan<double> x)
    {
        double sum = 0;
        for (int i = 0; i < weights.Length; i++)
        {
            sum += weights[i] * x[i];
        }
        return sum;
    }

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
            meanOfSquares += (value - mean) * (value - mean) / (norm.Plan.MeanWidth ?? x.Length);
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
        foreach ((LinearPart part, ReferenceMatrix? weight, float[]? bias, ReferenceMatrix? a, ReferenceMatrix? b) in weights.Parts)
        {
            double[][]? narrow = a is null ? null : [.. Enumerable.Range(0, source.Rows).Select(r => Products(a!, source.Row(r)))];
            int offset = firstOutput;
            Parallel.For(0, part.Outputs, () => new float[Math.Max(weights.Plan.Inputs, a?.Rows ?? 0)], (o, _, row) =>
            {
                Span<float> w = weight is null || part.Rows?.Contains(o) == false ? default : row.AsSpan(0, weights.Plan.Inputs);
                if (!w.IsEmpty)
                {
                    weight!.ReadRow(o, w);
                }
                for (int r = 0; r < source.Rows; r++)
                {
                    double sum = (bias?[o] ?? 0) + Dot(w, source.Row(r));
                    ref double y = ref destination.Row(r)[offset + o];
                    y = accumulate ? y + sum : sum;
                }
                Span<float> wide = row.AsSpan(0, a?.Rows ?? 0);
                b?.ReadRow(o, wide);
                for (int r = 0; r < source.Rows && narrow is not null; r++)
                {
                    destination.Row(r)[offset + o] += Dot(wide, narrow[r]);
                }
                return row;
            }, static _ => { });
            firstOutput += part.Outputs;
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
