using System.Numerics.Tensors;

namespace Tools.Trainer;

/// <summary>
/// Rotary embedding and causal attention inside documents, forward and backward, over rows of queries, keys and values side by side. A row
/// attends to the rows from its document's first to itself, as at inference, where a story never sees the one before it.
/// </summary>
internal sealed unsafe class Attention(LlamaShape shape)
{
    private readonly int headDimension = shape.HeadDimension;
    private readonly int groupSize = shape.Heads / shape.KvHeads;
    private readonly float scoreScale = 1 / MathF.Sqrt(shape.HeadDimension);
    private readonly float[] cosines = Table(shape, MathF.Cos);
    private readonly float[] sines = Table(shape, MathF.Sin);
    private readonly float[] probabilityGradients = new float[shape.Context];

    /// <summary>Rotates queries and keys in place; pairs are neighbours (2i, 2i + 1), as GGUF's llama stores them.</summary>
    /// <param name="qkv">[rows, QkvWidth].</param>
    /// <param name="positions">Position of each row.</param>
    /// <param name="inverse">Rotate back: the backward pass, because a rotation's transpose is its inverse.</param>
    internal void Rotate(float* qkv, ReadOnlySpan<int> positions, bool inverse)
    {
        int rotated = shape.Dimension + shape.KvWidth, half = headDimension / 2;
        for (int row = 0; row < positions.Length; row++)
        {
            int table = positions[row] * half;
            float* x = qkv + (long)row * shape.QkvWidth;
            for (int i = 0; i < rotated; i += 2)
            {
                int frequency = i / 2 % half;
                float cosine = cosines[table + frequency], sine = inverse ? -sines[table + frequency] : sines[table + frequency];
                (x[i], x[i + 1]) = (x[i] * cosine - x[i + 1] * sine, x[i] * sine + x[i + 1] * cosine);
            }
        }
    }

    /// <summary>output[row, head] = Σ softmax(q·k·scale)·v over the row's document so far.</summary>
    /// <param name="qkv">[rows, QkvWidth], rotated.</param>
    /// <param name="documentStart">First row of each row's document.</param>
    /// <param name="output">[rows, Dimension].</param>
    /// <param name="probabilities">Receives the weights, for each row and head one after the other.</param>
    internal void Forward(float* qkv, ReadOnlySpan<int> documentStart, float* output, float* probabilities)
    {
        for (int row = 0; row < documentStart.Length; row++)
        {
            int first = documentStart[row], length = row - first + 1;
            for (int head = 0; head < shape.Heads; head++, probabilities += length)
            {
                float* query = qkv + (long)row * shape.QkvWidth + head * headDimension;
                float* key = qkv + (long)first * shape.QkvWidth + shape.Dimension + head / groupSize * headDimension;
                float* value = key + shape.KvWidth;
                var weights = new Span<float>(probabilities, length);
                for (int j = 0; j < length; j++)
                    weights[j] = scoreScale * Vectors.Dot(query, key + (long)j * shape.QkvWidth, headDimension);
                TensorPrimitives.SoftMax(weights, weights);
                float* sum = output + (long)row * shape.Dimension + head * headDimension;
                new Span<float>(sum, headDimension).Clear();
                for (int j = 0; j < length; j++)
                    Vectors.AddScaled(sum, value + (long)j * shape.QkvWidth, weights[j], headDimension);
            }
        }
    }

    /// <summary>The gradient of <see cref="Forward"/> with respect to queries, keys and values.</summary>
    /// <param name="qkv">As in the forward pass.</param>
    /// <param name="documentStart">As in the forward pass.</param>
    /// <param name="probabilities">What the forward pass left.</param>
    /// <param name="outputGradient">[rows, Dimension].</param>
    /// <param name="qkvGradient">[rows, QkvWidth], overwritten.</param>
    internal void Backward(float* qkv, ReadOnlySpan<int> documentStart, float* probabilities, float* outputGradient, float* qkvGradient)
    {
        new Span<float>(qkvGradient, documentStart.Length * shape.QkvWidth).Clear();
        for (int row = 0; row < documentStart.Length; row++)
        {
            int first = documentStart[row], length = row - first + 1;
            for (int head = 0; head < shape.Heads; head++, probabilities += length)
            {
                long queryAt = (long)row * shape.QkvWidth + head * headDimension;
                long keyAt = (long)first * shape.QkvWidth + shape.Dimension + head / groupSize * headDimension;
                float* upstream = outputGradient + (long)row * shape.Dimension + head * headDimension;
                float expected = 0;
                for (int j = 0; j < length; j++)
                {
                    long valueAt = keyAt + shape.KvWidth + (long)j * shape.QkvWidth;
                    Vectors.AddScaled(qkvGradient + valueAt, upstream, probabilities[j], headDimension);
                    float gradient = probabilityGradients[j] = Vectors.Dot(upstream, qkv + valueAt, headDimension);
                    expected += probabilities[j] * gradient;
                }

                for (int j = 0; j < length; j++)
                {
                    float score = scoreScale * probabilities[j] * (probabilityGradients[j] - expected);
                    Vectors.AddScaled(qkvGradient + queryAt, qkv + keyAt + (long)j * shape.QkvWidth, score, headDimension);
                    Vectors.AddScaled(qkvGradient + keyAt + (long)j * shape.QkvWidth, qkv + queryAt, score, headDimension);
                }
            }
        }
    }

    private static float[] Table(LlamaShape shape, Func<float, float> function)
    {
        int half = shape.HeadDimension / 2;
        var table = new float[shape.Context * half];
        for (int position = 0; position < shape.Context; position++)
        {
            for (int i = 0; i < half; i++)
                table[position * half + i] = function(position * MathF.Pow(LlamaShape.RopeBase, -(float)i / half));
        }

        return table;
    }
}
