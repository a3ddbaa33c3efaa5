using System.Numerics.Tensors;
using System.Runtime.InteropServices;

namespace Tools.Trainer;

/// <summary>The forward and backward pass of a llama over flat rows of packed documents.</summary>
public sealed unsafe class LlamaModel : IDisposable
{
    private readonly LlamaParameters parameters;
    private readonly LlamaShape shape;
    private readonly int maxRows;
    private readonly Gemm gemm = new();
    private readonly Attention attention;
    private readonly LayerActivations[] layers;
    private readonly List<nint> buffers = [];

    private readonly float* final, finalInverse, finalNormed, allLogits;
    private readonly float* residualGradient, normedGradient, qkvGradient, hidden;

    /// <summary>Allocates the activations for passes of up to <paramref name="maxRows"/> rows, a multiple of 8.</summary>
    public LlamaModel(LlamaParameters parameters, int maxRows)
    {
        this.parameters = parameters;
        shape = parameters.Shape;
        this.maxRows = maxRows;
        attention = new Attention(shape);
        layers = [.. Enumerable.Range(0, shape.Layers).Select(_ => new LayerActivations
        {
            Input = Rows(shape.Dimension), AttentionInverse = Rows(1), AttentionNormed = Rows(shape.Dimension), Qkv = Rows(shape.QkvWidth),
            Attended = Rows(shape.Dimension), Middle = Rows(shape.Dimension), FeedForwardInverse = Rows(1),
            FeedForwardNormed = Rows(shape.Dimension), GateUp = Rows(2 * shape.FeedForward),
        })];
        final = Rows(shape.Dimension);
        finalInverse = Rows(1);
        finalNormed = Rows(shape.Dimension);
        allLogits = Rows(shape.Vocabulary);
        residualGradient = Rows(shape.Dimension);
        normedGradient = Rows(shape.Dimension);
        qkvGradient = Rows(shape.QkvWidth);
        hidden = Rows(shape.FeedForward);

        float* Rows(int width)
        {
            float* buffer = LlamaParameters.Allocate((long)maxRows * width);
            buffers.Add((nint)buffer);
            return buffer;
        }
    }

    /// <summary>Runs the batch forward and back; gradients are added to the parameters'.</summary>
    /// <returns>Mean cross-entropy in nats per predicted token.</returns>
    public double Train(Batch batch)
    {
        Forward(batch);
        Logits(batch.Length);
        double loss = LossAndLogitGradients(batch, out int predicted);
        Backward(batch);
        return loss / predicted;
    }

    /// <summary>Mean cross-entropy without gradients.</summary>
    public double Evaluate(Batch batch)
    {
        Forward(batch);
        Logits(batch.Length);
        return LossAndLogitGradients(batch, out int predicted) / predicted;
    }

    /// <summary>The logits after the last of <paramref name="tokens"/>. The text is run again each time: enough for samples.</summary>
    public ReadOnlySpan<float> NextLogits(ReadOnlySpan<int> tokens)
    {
        Batch batch = Batch.ForText(tokens);
        Forward(batch);
        // Eight rows are the smallest product; the last token's is among the last eight.
        int first = batch.Length - 8;
        Multiply(allLogits, finalNormed + (long)first * shape.Dimension, parameters.Embedding, 8);
        return new ReadOnlySpan<float>(allLogits + (long)(tokens.Length - 1 - first) * shape.Vocabulary, shape.Vocabulary);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        gemm.Dispose();
        foreach (nint buffer in buffers)
            NativeMemory.AlignedFree((void*)buffer);
        foreach (LayerActivations layer in layers)
            NativeMemory.AlignedFree(layer.Probabilities);
    }

    private void Forward(Batch batch)
    {
        int rows = batch.Length, width = shape.Dimension;
        ArgumentOutOfRangeException.ThrowIfGreaterThan(rows, maxRows);
        float* embedding = Weights(parameters.Embedding);
        float* x = shape.Layers > 0 ? layers[0].Input : final;
        for (int row = 0; row < rows; row++)
            Copy(embedding + (long)batch.Tokens[row] * width, x + (long)row * width, width);
        long pairs = 0;
        for (int row = 0; row < rows; row++)
            pairs += row - batch.DocumentStart[row] + 1;

        for (int l = 0; l < shape.Layers; l++)
        {
            LayerActivations layer = layers[l];
            LlamaParameters.Layer weights = parameters.Layers[l];
            layer.ReserveProbabilities(pairs * shape.Heads);
            Vectors.RmsNorm(layer.Input, Weights(weights.AttentionNorm), layer.AttentionNormed, layer.AttentionInverse, rows, width);
            Multiply(layer.Qkv, layer.AttentionNormed, weights.Qkv, rows);
            attention.Rotate(layer.Qkv, batch.Positions, inverse: false);
            attention.Forward(layer.Qkv, batch.DocumentStart, layer.Attended, layer.Probabilities);
            Copy(layer.Input, layer.Middle, rows * width);
            Multiply(layer.Middle, layer.Attended, weights.AttentionOutput, rows, accumulate: true);

            Vectors.RmsNorm(layer.Middle, Weights(weights.FeedForwardNorm), layer.FeedForwardNormed, layer.FeedForwardInverse, rows, width);
            Multiply(layer.GateUp, layer.FeedForwardNormed, weights.GateUp, rows);
            Vectors.SwiGlu(layer.GateUp, hidden, rows, shape.FeedForward);
            float* next = l + 1 < shape.Layers ? layers[l + 1].Input : final;
            Copy(layer.Middle, next, rows * width);
            Multiply(next, hidden, weights.Down, rows, accumulate: true);
        }

        Vectors.RmsNorm(final, Weights(parameters.OutputNorm), finalNormed, finalInverse, rows, width);
    }

    private void Logits(int rows) => Multiply(allLogits, finalNormed, parameters.Embedding, rows);

    /// <summary>Sums the cross-entropy and replaces the logits by its gradient, divided by the number of predicted tokens.</summary>
    private double LossAndLogitGradients(Batch batch, out int predicted)
    {
        double loss = 0;
        predicted = batch.Targets.AsSpan().Length - batch.Targets.AsSpan().Count(-1);
        float scale = 1f / predicted;
        for (int row = 0; row < batch.Length; row++)
        {
            var logits = new Span<float>(allLogits + (long)row * shape.Vocabulary, shape.Vocabulary);
            int target = batch.Targets[row];
            if (target < 0)
            {
                logits.Clear();
                continue;
            }

            // Not shifted by its largest logit, so one above 88 overflows; training stops there with a message.
            TensorPrimitives.SoftMax(logits, logits);
            loss -= Math.Log(Math.Max(logits[target], 1e-30f));
            logits[target] -= 1;
            TensorPrimitives.Multiply(logits, scale, logits);
        }

        return loss;
    }

    private void Backward(Batch batch)
    {
        int rows = batch.Length, width = shape.Dimension;
        MultiplyBackward(allLogits, finalNormed, parameters.Embedding, normedGradient, rows);
        new Span<float>(residualGradient, rows * width).Clear();
        NormBackward(final, parameters.OutputNorm, finalInverse, rows);

        for (int l = shape.Layers - 1; l >= 0; l--)
        {
            LayerActivations layer = layers[l];
            LlamaParameters.Layer weights = parameters.Layers[l];
            Vectors.SwiGlu(layer.GateUp, hidden, rows, shape.FeedForward);
            AddWeightGradient(residualGradient, hidden, weights.Down, rows);
            InputGradient(residualGradient, weights.Down, hidden, rows);
            Vectors.SwiGluBackward(layer.GateUp, hidden, rows, shape.FeedForward);
            MultiplyBackward(layer.GateUp, layer.FeedForwardNormed, weights.GateUp, normedGradient, rows);
            NormBackward(layer.Middle, weights.FeedForwardNorm, layer.FeedForwardInverse, rows);

            MultiplyBackward(residualGradient, layer.Attended, weights.AttentionOutput, normedGradient, rows);
            attention.Backward(layer.Qkv, batch.DocumentStart, layer.Probabilities, normedGradient, qkvGradient);
            attention.Rotate(qkvGradient, batch.Positions, inverse: true);
            MultiplyBackward(qkvGradient, layer.AttentionNormed, weights.Qkv, normedGradient, rows);
            NormBackward(layer.Input, weights.AttentionNorm, layer.AttentionInverse, rows);
        }

        float* embeddingGradient = Gradients(parameters.Embedding);
        for (int row = 0; row < rows; row++)
            Vectors.AddScaled(embeddingGradient + (long)batch.Tokens[row] * width, residualGradient + (long)row * width, 1, width);
    }

    /// <summary>From the gradient of a norm's output to those of its gain and, added, of the residual stream.</summary>
    private void NormBackward(float* x, Parameter gain, float* inverseRms, int rows) =>
        Vectors.RmsNormBackward(x, Weights(gain), inverseRms, normedGradient, residualGradient, Gradients(gain), rows, shape.Dimension);

    /// <summary>output = input·Wᵀ.</summary>
    private void Multiply(float* output, float* input, Parameter weight, int rows, bool accumulate = false) =>
        gemm.Multiply(
            new Matrix(output, weight.Rows), new Matrix(input, weight.Columns), new Matrix(Weights(weight), weight.Columns).Transposed,
            rows, weight.Rows, weight.Columns, accumulate);

    private void MultiplyBackward(float* outputGradient, float* input, Parameter weight, float* inputGradient, int rows)
    {
        AddWeightGradient(outputGradient, input, weight, rows);
        InputGradient(outputGradient, weight, inputGradient, rows);
    }

    /// <summary>W' += output'ᵀ·input.</summary>
    private void AddWeightGradient(float* outputGradient, float* input, Parameter weight, int rows) =>
        gemm.Multiply(
            new Matrix(Gradients(weight), weight.Columns), new Matrix(outputGradient, weight.Rows).Transposed,
            new Matrix(input, weight.Columns), weight.Rows, weight.Columns, rows, accumulate: true);

    /// <summary>input' = output'·W.</summary>
    private void InputGradient(float* outputGradient, Parameter weight, float* inputGradient, int rows) =>
        gemm.Multiply(
            new Matrix(inputGradient, weight.Columns), new Matrix(outputGradient, weight.Rows), new Matrix(Weights(weight), weight.Columns),
            rows, weight.Columns, weight.Rows);

    private float* Weights(Parameter parameter) => parameters.Weights + parameter.Offset;

    private float* Gradients(Parameter parameter) => parameters.Gradients + parameter.Offset;

    private static void Copy(float* source, float* target, int length) =>
        new ReadOnlySpan<float>(source, length).CopyTo(new Span<float>(target, length));

    /// <summary>What a block's forward pass leaves for its backward pass.</summary>
    private sealed class LayerActivations
    {
        private long reserved;

        public float* Input, AttentionInverse, AttentionNormed, Qkv, Attended, Probabilities;

        public float* Middle, FeedForwardInverse, FeedForwardNormed, GateUp;

        public void ReserveProbabilities(long length)
        {
            if (length <= reserved)
                return;
            NativeMemory.AlignedFree(Probabilities);
            Probabilities = LlamaParameters.Allocate(reserved = length);
        }
    }
}
