using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using Tools.StoryGrammar;

namespace Tools.Trainer;

/// <summary>One matrix or vector of weights inside the flat parameter buffer.</summary>
/// <param name="Name">For example <c>blk.0.qkv</c>.</param>
/// <param name="Offset">First element in the flat buffer.</param>
/// <param name="Rows">Outputs; 1 for a norm.</param>
/// <param name="Columns">Inputs.</param>
public sealed record Parameter(string Name, int Offset, int Rows, int Columns)
{
    /// <summary>Elements.</summary>
    public int Length => Rows * Columns;

    /// <summary>Matrices decay, norms and the embedding do not.</summary>
    public bool Decays => Rows > 1 && Name != "embedding";
}

/// <summary>All weights of a model in one flat buffer, their gradients in another of the same layout.</summary>
public sealed unsafe class LlamaParameters : IDisposable
{
    /// <summary>Allocates zeroed weights and gradients.</summary>
    public LlamaParameters(LlamaShape shape)
    {
        Shape = shape;
        var all = new List<Parameter>();
        Embedding = Add("embedding", shape.Vocabulary, shape.Dimension);
        Layers = [.. Enumerable.Range(0, shape.Layers).Select(layer => new Layer(
            Add($"blk.{layer}.attn_norm", 1, shape.Dimension),
            Add($"blk.{layer}.qkv", shape.QkvWidth, shape.Dimension),
            Add($"blk.{layer}.attn_output", shape.Dimension, shape.Dimension),
            Add($"blk.{layer}.ffn_norm", 1, shape.Dimension),
            Add($"blk.{layer}.gate_up", 2 * shape.FeedForward, shape.Dimension),
            Add($"blk.{layer}.ffn_down", shape.Dimension, shape.FeedForward)))];
        OutputNorm = Add("output_norm", 1, shape.Dimension);
        All = all;
        Length = all[^1].Offset + all[^1].Length;
        Weights = Allocate(Length);
        Gradients = Allocate(Length);

        Parameter Add(string name, int rows, int columns)
        {
            var parameter = new Parameter(name, all.Count == 0 ? 0 : all[^1].Offset + all[^1].Length, rows, columns);
            all.Add(parameter);
            return parameter;
        }
    }

    /// <summary>The model's shape.</summary>
    public LlamaShape Shape { get; }

    /// <summary>Every parameter in buffer order.</summary>
    public IReadOnlyList<Parameter> All { get; }

    /// <summary>Token embeddings, also the output matrix.</summary>
    public Parameter Embedding { get; }

    /// <summary>The blocks.</summary>
    public IReadOnlyList<Layer> Layers { get; }

    /// <summary>Gain of the last norm.</summary>
    public Parameter OutputNorm { get; }

    /// <summary>Elements of either buffer.</summary>
    public int Length { get; }

    /// <summary>The weights.</summary>
    public float* Weights { get; }

    /// <summary>Their gradients.</summary>
    public float* Gradients { get; }

    /// <summary>The weights of one parameter.</summary>
    public Span<float> this[Parameter parameter] => new(Weights + parameter.Offset, parameter.Length);

    /// <summary>
    /// Gains of 1 and normal weights that keep variances, but that each attention head starts as a copier: its output matrix is the transpose
    /// of its value matrix, so what a row attends to becomes likelier to follow. Such a start is ahead of a random one after 200 steps
    /// (compare Trockman and Kolter, "Mimetic initialization of self-attention layers", 2023).
    /// </summary>
    public void Initialise(Dice dice)
    {
        foreach (Parameter parameter in All)
        {
            double deviation = 1 / Math.Sqrt(parameter.Columns);
            foreach (ref float weight in this[parameter])
                weight = parameter.Rows == 1 ? 1 : (float)(deviation * Normal(dice));
        }

        float residualScale = 1 / MathF.Sqrt(2 * Shape.Layers);
        foreach (Layer layer in Layers)
        {
            TensorPrimitives.Multiply(this[layer.Down], residualScale, this[layer.Down]);
            Span<float> values = this[layer.Qkv][((Shape.Dimension + Shape.KvWidth) * Shape.Dimension)..], output = this[layer.AttentionOutput];
            for (int column = 0; column < Shape.Dimension; column++)
            {
                (int head, int i) = Math.DivRem(column, Shape.HeadDimension);
                int valueRow = head / (Shape.Heads / Shape.KvHeads) * Shape.HeadDimension + i;
                for (int row = 0; row < Shape.Dimension; row++)
                    output[row * Shape.Dimension + column] = residualScale * values[valueRow * Shape.Dimension + row];
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        NativeMemory.AlignedFree(Weights);
        NativeMemory.AlignedFree(Gradients);
    }

    /// <summary>A zeroed buffer on a cache line.</summary>
    internal static float* Allocate(long length)
    {
        nuint bytes = checked((nuint)length * sizeof(float));
        void* memory = NativeMemory.AlignedAlloc(bytes, 64);
        NativeMemory.Clear(memory, bytes);
        return (float*)memory;
    }

    private static double Normal(Dice dice) => Math.Sqrt(-2 * Math.Log(1 - dice.NextDouble())) * Math.Cos(2 * Math.PI * dice.NextDouble());

    /// <summary>The parameters of one block; queries, keys and values are one matrix, gate and up another.</summary>
    public sealed record Layer(
        Parameter AttentionNorm, Parameter Qkv, Parameter AttentionOutput, Parameter FeedForwardNorm, Parameter GateUp, Parameter Down);
}
