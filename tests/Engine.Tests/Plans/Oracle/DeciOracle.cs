using System.Text.Json.Nodes;
using static Engine.Tests.Plans.Oracle.OracleMath;

namespace Engine.Tests.Plans.Oracle;

/// <summary>modeling_decilm of Nemotron-NAS in plain doubles: what a layer has is read from its entry of <c>block_configs</c>.</summary>
internal sealed class DeciOracle(TinyModel model)
{
    private const double Epsilon = 1e-5;

    /// <summary>A random model, a layer per entry.</summary>
    public static TinyModel Make(int seed, string blocks)
    {
        const int hidden = 24, heads = 4, headDim = 6;
        var entries = (JsonArray)JsonNode.Parse(blocks)!;
        var config = new JsonObject
        {
            ["model_type"] = "nemotron-nas",
            ["architectures"] = new JsonArray("DeciLMForCausalLM"),
            ["vocab_size"] = 40,
            ["hidden_size"] = hidden,
            ["num_hidden_layers"] = entries.Count,
            ["num_attention_heads"] = heads,
            ["num_key_value_heads"] = null,
            ["intermediate_size"] = null,
            ["max_position_embeddings"] = 64,
            ["rms_norm_eps"] = Epsilon,
            ["rope_theta"] = 500000.0,
            ["hidden_act"] = "silu",
            ["tie_word_embeddings"] = false,
            ["block_configs"] = entries,
        };
        var model = new TinyModel("nemotron-nas", (JsonObject)JsonNode.Parse(config.ToJsonString())!, seed);
        model.AddTable("model.embed_tokens.weight", 40, hidden);
        for (int layer = 0; layer < entries.Count; layer++)
        {
            JsonNode attention = entries[layer]!["attention"]!, ffn = entries[layer]!["ffn"]!;
            string name = $"model.layers.{layer}.";
            if (!Is(attention, "no_op"))
            {
                model.AddGain(name + "input_layernorm.weight", hidden);
            }
            if (Is(attention, "replace_with_linear"))
            {
                model.AddMatrix(name + "self_attn.linear_attn.weight", hidden, hidden, hidden);
            }
            else if (!Is(attention, "no_op"))
            {
                int keys = heads / (int)attention["n_heads_in_group"]! * headDim;
                model.AddMatrix(name + "self_attn.q_proj.weight", heads * headDim, hidden, hidden);
                model.AddMatrix(name + "self_attn.k_proj.weight", keys, hidden, hidden);
                model.AddMatrix(name + "self_attn.v_proj.weight", keys, hidden, hidden);
                model.AddMatrix(name + "self_attn.o_proj.weight", hidden, heads * headDim, heads * headDim);
            }
            if (!Is(ffn, "no_op"))
            {
                model.AddGain(name + "post_attention_layernorm.weight", hidden);
            }
            if (Is(ffn, "replace_with_linear"))
            {
                model.AddMatrix(name + "mlp.linear_mlp.weight", hidden, hidden, hidden);
            }
            else if (!Is(ffn, "no_op"))
            {
                int width = (int)(2 * (double)ffn["ffn_mult"]! * hidden / 3);
                width = width % 256 == 0 ? width : width + 256 - width % 256;
                model.AddMatrix(name + "mlp.gate_proj.weight", width, hidden, hidden);
                model.AddMatrix(name + "mlp.up_proj.weight", width, hidden, hidden);
                model.AddMatrix(name + "mlp.down_proj.weight", hidden, width, width);
            }
        }
        model.AddGain("model.norm.weight", hidden);
        model.AddMatrix("lm_head.weight", 40, hidden, hidden);
        return model;
    }

    /// <summary>Logits [position][token].</summary>
    public double[][] Logits(int[] tokens)
    {
        JsonObject config = model.Config;
        int hidden = (int)config["hidden_size"]!, heads = (int)config["num_attention_heads"]!;
        var rotary = new RotaryOracle(config, hidden / heads);
        float[] embeddings = W("model.embed_tokens.weight");
        double[][] x = [.. tokens.Select(token => embeddings.Skip(token * hidden).Take(hidden).Select(static v => (double)v).ToArray())];
        var blocks = (JsonArray)config["block_configs"]!;
        for (int layer = 0; layer < blocks.Count; layer++)
        {
            JsonNode attention = blocks[layer]!["attention"]!, ffn = blocks[layer]!["ffn"]!;
            string name = $"model.layers.{layer}.";
            if (!Is(attention, "no_op"))
            {
                double[][] normed = [.. x.Select(row => RmsNorm(row, W(name + "input_layernorm.weight"), Epsilon))];
                x = [.. x.Zip(Is(attention, "replace_with_linear")
                    ? normed.Select(row => Linear(row, W(name + "self_attn.linear_attn.weight"), null))
                    : Attention(name + "self_attn.", normed, heads, (int)attention["n_heads_in_group"]!, hidden / heads, rotary), Add)];
            }
            if (!Is(ffn, "no_op"))
            {
                x = [.. x.Select(row => Add(row, Mlp(name + "mlp.", RmsNorm(row, W(name + "post_attention_layernorm.weight"), Epsilon), ffn)))];
            }
        }
        return [.. x.Select(row => Linear(RmsNorm(row, W("model.norm.weight"), Epsilon), W("lm_head.weight"), null))];
    }

    private static bool Is(JsonNode section, string key) => section[key]?.GetValue<bool>() == true;

    private IEnumerable<double[]> Attention(string name, double[][] x, int heads, int group, int headDim, RotaryOracle rotary)
    {
        double[][][] queries = Project("q_proj", true), keys = Project("k_proj", true), values = Project("v_proj", false);
        return x.Select((_, i) => Linear(
            [.. Enumerable.Range(0, heads).SelectMany(head => Attend(
                queries[i][head], [.. keys.Select(k => k[head / group])], [.. values.Select(v => v[head / group])], 1 / Math.Sqrt(headDim), j => j <= i))],
            W(name + "o_proj.weight"), null));

        double[][][] Project(string linear, bool rotate) => [.. x.Select((row, position) => Linear(row, W($"{name}{linear}.weight"), null).Chunk(headDim)
            .Select(head => rotate ? rotary.Apply(head, position) : head).ToArray())];
    }

    private double[] Mlp(string name, double[] x, JsonNode ffn) => Is(ffn, "replace_with_linear")
        ? Linear(x, W(name + "linear_mlp.weight"), null)
        : Linear([.. Linear(x, W(name + "gate_proj.weight"), null).Zip(Linear(x, W(name + "up_proj.weight"), null), static (g, u) => Silu(g) * u)],
            W(name + "down_proj.weight"), null);

    private float[] W(string name) => model.Tensors[name].Values;
}
