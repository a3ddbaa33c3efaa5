using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;

namespace Engine.Tests.Plans.Oracle;

/// <summary>
/// Takes heads, neurons and sublayers out of a <see cref="TinyModel"/> twice: as zeros in matrices that keep their shapes, which any forward pass can run, and as smaller
/// matrices, which is what pruning tools save.
/// </summary>
internal static class LayerSurgery
{
    /// <summary>What a layer keeps.</summary>
    /// <param name="KvHeads">Key and value heads; empty for no attention.</param>
    /// <param name="QueriesOfGroup">Which query heads of each of them, the same number of each; empty for no attention.</param>
    /// <param name="Neurons">Neurons of the feed-forward; empty for none.</param>
    public sealed record Kept(int[] KvHeads, int[] QueriesOfGroup, int[] Neurons);

    /// <summary>Something to keep of each layer; at least one neuron and one head.</summary>
    public static Kept[] Draw(TinyModel model, Random random)
    {
        (int heads, int kvHeads, _, int width, int layers) = Shape(model);
        return [.. Enumerable.Range(0, layers).Select(_ => new Kept(Some(kvHeads), Some(heads / kvHeads), Some(width)))];

        int[] Some(int count) => [.. random.GetItems(Enumerable.Range(0, count).ToArray(), random.Next(1, count + 1)).Distinct().Order()];
    }

    /// <summary>The model with zeros in place of what is not kept: nothing comes out of such heads and neurons.</summary>
    public static TinyModel Zeroed(TinyModel model, IReadOnlyList<Kept> kept)
    {
        TinyModel zeroed = Copy(model);
        (int heads, int kvHeads, int headDim, _, int layers) = Shape(model);
        for (int layer = 0; layer < layers; layer++)
        {
            Kept keep = kept[layer];
            HashSet<int> columns = [.. Rows(Queries(keep, heads / kvHeads), headDim)];
            ZeroColumns($"model.layers.{layer}.self_attn.o_proj", columns, keep.KvHeads.Length == 0);
            ZeroColumns($"model.layers.{layer}.mlp.down_proj", [.. keep.Neurons], keep.Neurons.Length == 0);
        }
        return zeroed;

        void ZeroColumns(string linear, HashSet<int> columns, bool gone)
        {
            (long[] shape, float[] values) = zeroed.Tensors[$"{linear}.weight"];
            for (int i = 0; i < values.Length; i++)
            {
                values[i] = columns.Contains((int)(i % shape[1])) ? values[i] : 0;
            }
            if (gone && zeroed.Tensors.TryGetValue($"{linear}.bias", out (long[] Shape, float[] Values) bias))
            {
                Array.Clear(bias.Values);
            }
        }
    }

    /// <summary>The model without what is not kept; its configuration stays. Norms of sublayers that are gone stay too.</summary>
    public static TinyModel Cut(TinyModel model, IReadOnlyList<Kept> kept)
    {
        TinyModel cut = Copy(model);
        (int heads, int kvHeads, int headDim, _, int layers) = Shape(model);
        for (int layer = 0; layer < layers; layer++)
        {
            Kept keep = kept[layer];
            string name = $"model.layers.{layer}.";
            if (keep.KvHeads.Length == 0)
            {
                Remove(name + "self_attn.");
            }
            else
            {
                int[] queries = [.. Rows(Queries(keep, heads / kvHeads), headDim)], keys = [.. Rows(keep.KvHeads, headDim)];
                KeepRows(name + "self_attn.q_proj", queries);
                KeepRows(name + "self_attn.k_proj", keys);
                KeepRows(name + "self_attn.v_proj", keys);
                KeepColumns(name + "self_attn.o_proj", queries);
            }
            if (keep.Neurons.Length == 0)
            {
                Remove(name + "mlp.");
                continue;
            }
            KeepRows(name + "mlp.gate_proj", keep.Neurons);
            KeepRows(name + "mlp.up_proj", keep.Neurons);
            KeepColumns(name + "mlp.down_proj", keep.Neurons);
        }
        return cut;

        void Remove(string start)
        {
            foreach (string tensor in cut.Tensors.Keys.Where(tensor => tensor.StartsWith(start, StringComparison.Ordinal)).ToArray())
            {
                cut.Tensors.Remove(tensor);
            }
        }

        void KeepRows(string linear, int[] rows)
        {
            (long[] shape, float[] values) = cut.Tensors[$"{linear}.weight"];
            cut.Tensors[$"{linear}.weight"] = ([rows.Length, shape[1]], [.. rows.SelectMany(row => values.Skip(row * (int)shape[1]).Take((int)shape[1]))]);
            if (cut.Tensors.TryGetValue($"{linear}.bias", out (long[] Shape, float[] Values) bias))
            {
                cut.Tensors[$"{linear}.bias"] = ([rows.Length], [.. rows.Select(row => bias.Values[row])]);
            }
        }

        void KeepColumns(string linear, int[] columns)
        {
            (long[] shape, float[] values) = cut.Tensors[$"{linear}.weight"];
            cut.Tensors[$"{linear}.weight"] = (
                [shape[0], columns.Length], [.. Enumerable.Range(0, (int)shape[0]).SelectMany(row => columns.Select(column => values[row * (int)shape[1] + column]))]);
        }
    }

    /// <summary>Writes a model as a Hugging Face folder.</summary>
    public static string Write(TinyModel model, TemporaryFolder folder)
    {
        using MemoryCheckpoint source = model.ToCheckpoint();
        SafetensorsWriter.WriteFolder(folder.Path, [.. source.TensorNames.Select(tensor => TensorSource.Convert(source[tensor], DType.F32))]);
        folder.Write("config.json", model.Config.ToJsonString());
        return folder.Path;
    }

    /// <summary>A model of its own with the same values.</summary>
    public static TinyModel Copy(TinyModel model)
    {
        var copy = new TinyModel(model.ToString(), (JsonObject)model.Config.DeepClone(), 0);
        foreach ((string tensor, (long[] shape, float[] values)) in model.Tensors)
        {
            copy.Tensors.Add(tensor, (shape, [.. values]));
        }
        return copy;
    }

    private static IEnumerable<int> Queries(Kept keep, int group) => keep.KvHeads.SelectMany(head => keep.QueriesOfGroup.Select(query => head * group + query));

    private static IEnumerable<int> Rows(IEnumerable<int> heads, int headDim) => heads.SelectMany(head => Enumerable.Range(head * headDim, headDim));

    private static (int Heads, int KvHeads, int HeadDim, int Width, int Layers) Shape(TinyModel model)
    {
        JsonObject config = model.Config;
        int heads = (int)config["num_attention_heads"]!;
        return (heads, (int)config["num_key_value_heads"]!, config["head_dim"]?.GetValue<int>() ?? (int)config["hidden_size"]! / heads,
            (int)config["intermediate_size"]!, (int)config["num_hidden_layers"]!);
    }
}
