using System.Text.Json.Nodes;

namespace Engine.Tests.Plans.Oracle;

/// <summary>Tiny recursive models under the names that mixture_of_recursions gives them, with weights stored once.</summary>
internal static class RecursiveModels
{
    private const int Hidden = 32, Width = 44, Vocabulary = 48;

    /// <summary>Makes a model.</summary>
    /// <param name="sharing">As in the settings.</param>
    /// <param name="layers">Layers that are run.</param>
    /// <param name="recursions">How often.</param>
    /// <param name="router">The section <c>mor</c> as JSON, or null for none.</param>
    /// <param name="kv">Keys and values are shared.</param>
    public static TinyModel Make(string sharing, int layers, int recursions, string? router = null, bool kv = false)
    {
        JsonObject? mor = router is null ? null : (JsonObject)JsonNode.Parse(router)!;
        string? kind = (string?)mor?["type"];
        var sections = (JsonObject)JsonNode.Parse("""
            {"recursive": {"enable": true, "ln_share": true, "initialization": "stepwise"}, "kv_sharing": {}}
            """)!;
        sections["recursive"]!["num_recursion"] = recursions;
        sections["recursive"]!["sharing"] = sharing;
        sections["kv_sharing"]!["enable"] = kv;
        if (mor is not null)
        {
            mor["enable"] = true;
            sections["mor"] = mor;
        }
        var config = (JsonObject)JsonNode.Parse("""
            {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
             "tie_word_embeddings": true}
            """)!;
        config["architectures"] = new JsonArray(mor is null ? "LlamaForCausalLM" : "MoRLlamaForCausalLM");
        config["vocab_size"] = Vocabulary;
        config["hidden_size"] = Hidden;
        config["intermediate_size"] = Width;
        config["num_hidden_layers"] = layers;
        config["mor"] = sections;
        var model = new TinyModel($"{sharing} {layers}/{recursions} {kind}", config, Random.Shared.Next());
        model.AddTable("model.embed_tokens.weight", Vocabulary, Hidden);
        bool middle = sharing.StartsWith("middle", StringComparison.Ordinal);
        foreach (int owner in Enumerable.Range(0, layers).Select(layer => Owner(sharing, layers, recursions, layer)).Distinct())
        {
            AddLayer(model, Name(kind, middle, layers, recursions, owner));
        }
        int first = middle ? 1 : 0;
        for (int depth = 0; depth < (kind == "expert" ? recursions : kind == "token" ? 1 : 0); depth++)
        {
            string place = $"model.layers.{first + depth}.";
            AddRouter(model, place + "mor_router.router", mor!, kind == "expert" ? 1 : recursions);
            if ((string?)mor!["expert"]?["sampling"] == "aux_router")
            {
                AddRouter(model, place + "mlp_router.router", mor, 1);
            }
            if ((string?)mor["token"]?["balancing"] == "loss_free")
            {
                model.AddBias(place + "router_bias", recursions);
            }
        }
        model.AddGain("model.norm.weight", Hidden);
        return model;
    }

    /// <summary>The unrolled layer that has the weights of layer <paramref name="layer"/>.</summary>
    public static int Owner(string sharing, int layers, int recursions, int layer)
    {
        if (recursions == 1 || (sharing.StartsWith("middle", StringComparison.Ordinal) && (layer == 0 || layer == layers - 1)))
        {
            return layer;
        }
        return sharing switch
        {
            "cycle" => layer % (layers / recursions),
            "sequence" => recursions * (layer / recursions),
            "middle_cycle" => 1 + (layer - 1) % ((layers - 2) / recursions),
            _ => 1 + recursions * ((layer - 1) / recursions),
        };
    }

    /// <summary>What the names of an unrolled layer begin with.</summary>
    public static string Name(string? kind, bool middle, int layers, int recursions, int layer)
    {
        int perDepth = (middle ? layers - 2 : layers) / recursions, inner = layer - (middle ? 1 : 0);
        return (kind, middle) switch
        {
            (null, _) => $"model.layers.{layer}",
            (_, true) when layer == 0 => "model.layers.0",
            ("expert", true) when layer == layers - 1 => $"model.layers.{recursions + 1}",
            ("token", true) when layer == layers - 1 => "model.layers.2",
            ("expert", _) => $"model.layers.{(middle ? 1 : 0) + inner / perDepth}.block.{inner % perDepth}",
            _ => $"model.layers.1.block_list.{inner / perDepth}.{inner % perDepth}",
        };
    }

    /// <summary>Adds the nine tensors of a layer.</summary>
    public static void AddLayer(TinyModel model, string name)
    {
        model.AddGain($"{name}.input_layernorm.weight", Hidden);
        model.AddMatrix($"{name}.self_attn.q_proj.weight", Hidden, Hidden, Hidden);
        model.AddMatrix($"{name}.self_attn.k_proj.weight", Hidden / 2, Hidden, Hidden);
        model.AddMatrix($"{name}.self_attn.v_proj.weight", Hidden / 2, Hidden, Hidden);
        model.AddMatrix($"{name}.self_attn.o_proj.weight", Hidden, Hidden, Hidden);
        model.AddGain($"{name}.post_attention_layernorm.weight", Hidden);
        model.AddMatrix($"{name}.mlp.gate_proj.weight", Width, Hidden, Hidden);
        model.AddMatrix($"{name}.mlp.up_proj.weight", Width, Hidden, Hidden);
        model.AddMatrix($"{name}.mlp.down_proj.weight", Hidden, Width, Width);
    }

    private static void AddRouter(TinyModel model, string name, JsonObject mor, int outputs)
    {
        if ((string?)mor["router_type"] == "linear")
        {
            model.AddMatrix($"{name}.weight", outputs, Hidden, Hidden);
            return;
        }
        model.AddMatrix($"{name}.0.weight", 2 * Hidden, Hidden, Hidden);
        model.AddMatrix($"{name}.2.weight", outputs, 2 * Hidden, 2 * Hidden);
    }
}
