using System.Text.Json.Nodes;
using Engine.Checkpoints;

namespace Engine.Tests.Plans.Oracle;

/// <summary>A random model of a few thousand weights, under Hugging Face's names.</summary>
internal sealed class TinyModel(string name, JsonObject config, int seed)
{
    private readonly Random random = new(seed);

    /// <summary>What it shows, for messages.</summary>
    public string Name { get; } = name;

    /// <summary>Its config.json.</summary>
    public JsonObject Config { get; } = config;

    /// <summary>Its tensors, in file order.</summary>
    public OrderedDictionary<string, (long[] Shape, float[] Values)> Tensors { get; } = [];

    /// <summary>Its tensors of bytes, which are codes rather than numbers, in file order behind the others.</summary>
    public OrderedDictionary<string, (long[] Shape, byte[] Values)> Codes { get; } = [];

    /// <summary>For messages: which model, and how to make it again.</summary>
    public override string ToString() => $"{Name} (seed {seed})";

    /// <summary>Adds a matrix whose products have about the size of their inputs.</summary>
    public void AddMatrix(string tensor, int rows, int columns, int inputs) => Add(tensor, [rows, columns], 0, 1.2 / Math.Sqrt(inputs));

    /// <summary>Adds a table of embeddings.</summary>
    public void AddTable(string tensor, int rows, int width) => Add(tensor, [rows, width], 0, 1);

    /// <summary>Adds a norm's gain, around one.</summary>
    public void AddGain(string tensor, int length) => Add(tensor, [length], 1, 0.3);

    /// <summary>Adds a bias, large enough to matter.</summary>
    public void AddBias(string tensor, int length) => Add(tensor, [length], 0, 0.4);

    /// <summary>Adds normally distributed values.</summary>
    public void Add(string tensor, long[] shape, double mean, double deviation) => Add(tensor, shape, random =>
    {
        // Box and Muller 1958.
        double normal = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());
        return (float)(mean + deviation * normal);
    });

    /// <summary>Adds values that are drawn one by one.</summary>
    public void Add(string tensor, long[] shape, Func<Random, float> draw)
    {
        float[] values = new float[shape.Aggregate(1L, static (a, b) => a * b)];
        foreach (ref float value in values.AsSpan())
        {
            value = draw(random);
        }
        Tensors.Add(tensor, (shape, values));
    }

    /// <summary>The model as a checkpoint in memory.</summary>
    public MemoryCheckpoint ToCheckpoint()
    {
        var checkpoint = new MemoryCheckpoint(Name, (JsonObject)Config.DeepClone());
        foreach ((string tensor, (long[] shape, float[] values)) in Tensors)
        {
            checkpoint.Add(tensor, shape, values);
        }
        foreach ((string tensor, (long[] shape, byte[] values)) in Codes)
        {
            checkpoint.Add(tensor, DType.U8, shape, values);
        }
        return checkpoint;
    }

    /// <summary>Random token ids.</summary>
    public int[] Tokens(int count)
    {
        int vocabulary = (int)Config["vocab_size"]!;
        return [.. Enumerable.Range(0, count).Select(_ => random.Next(vocabulary))];
    }
}
