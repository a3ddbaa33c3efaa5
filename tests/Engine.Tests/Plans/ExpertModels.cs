using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Tiny random models with mixtures of experts: 3 layers, 6 experts of which a token goes to 2.</summary>
internal static class ExpertModels
{
    public const int Hidden = 32, Layers = 3, Experts = 6, Width = 20, DenseWidth = 24, SharedWidth = 28, SharedExperts = 2;

    /// <summary>Names of an expert's linears, gate, up and down.</summary>
    public static readonly string[] UsualNames = ["gate_proj", "up_proj", "down_proj"], NumberedNames = ["w1", "w3", "w2"];

    /// <summary>Every family, each with the tensors of all its layers.</summary>
    public static readonly string[] Families = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek", "phimoe"];

    /// <summary>A model of the family in the layout of its own library.</summary>
    /// <param name="family">Its <c>model_type</c>.</param>
    /// <param name="differences">What its configuration has besides, or otherwise.</param>
    /// <param name="dense">Layers that are no mixtures.</param>
    public static TinyModel Make(string family, string differences = "{}", params int[] dense)
    {
        var config = (JsonObject)JsonNode.Parse($$"""
            {"model_type": "{{family}}", "vocab_size": 48, "hidden_size": {{Hidden}}, "num_hidden_layers": {{Layers}}, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
             "hidden_act": "silu", "tie_word_embeddings": true, "num_experts_per_tok": 2,
             "intermediate_size": {{(family is "mixtral" or "olmoe" or "phimoe" ? Width : DenseWidth)}}}
            """)!;
        config[family switch { "mixtral" or "phimoe" => "num_local_experts", "deepseek" => "n_routed_experts", _ => "num_experts" }] = Experts;
        if (family is not ("mixtral" or "olmoe" or "phimoe"))
        {
            config["moe_intermediate_size"] = Width;
        }
        if (family == "phimoe")
        {
            config["attention_bias"] = true;
            config["lm_head_bias"] = true;
            config["tie_word_embeddings"] = false;
            config["router_jitter_noise"] = 0.02;
        }
        if (family == "deepseek")
        {
            config["n_shared_experts"] = SharedExperts;
        }
        if (family == "qwen2_moe")
        {
            config["shared_expert_intermediate_size"] = SharedWidth;
        }
        foreach ((string key, JsonNode? value) in (JsonObject)JsonNode.Parse(differences)!)
        {
            config[key] = value?.DeepClone();
        }
        // As a file would have it: numbers that are parsed convert to any type, those that are set only to their own.
        config = (JsonObject)JsonNode.Parse(config.ToJsonString())!;
        var model = new TinyModel(family, config, Random.Shared.Next());
        model.AddTable("model.embed_tokens.weight", 48, Hidden);
        for (int layer = 0; layer < Layers; layer++)
        {
            string name = $"model.layers.{layer}";
            AddNorm($"{name}.input_layernorm");
            AddAttention(model, $"{name}.self_attn", family);
            AddNorm($"{name}.post_attention_layernorm");
            if (dense.Contains(layer))
            {
                AddFeedForward(model, $"{name}.mlp", DenseWidth, UsualNames);
            }
            else
            {
                AddMixture(model, name, family);
            }
        }
        AddNorm("model.norm");
        if (family == "phimoe")
        {
            model.AddMatrix("lm_head.weight", 48, Hidden, Hidden);
            model.AddBias("lm_head.bias", 48);
        }
        return model;

        void AddNorm(string name)
        {
            model.AddGain($"{name}.weight", Hidden);
            if (family == "phimoe")
            {
                model.AddBias($"{name}.bias", Hidden);
            }
        }
    }

    /// <summary>The name of a layer's mixture.</summary>
    public static string Module(string family, int layer) =>
        $"model.layers.{layer}.{(UsesNumbers(family) ? "block_sparse_moe" : "mlp")}";

    /// <summary>Linears are called as in <see cref="NumberedNames"/>.</summary>
    public static bool UsesNumbers(string family) => family is "mixtral" or "phimoe";

    /// <summary>The same values in transformers 5's layout: <c>gate_up_proj</c> and <c>down_proj</c> of all experts.</summary>
    public static TinyModel Fuse(TinyModel model, string suffix = "", bool gateWithUp = true)
    {
        for (int layer = 0; layer < Layers; layer++)
        {
            string module = Module(model.Name, layer), fused = $"model.layers.{layer}.mlp.experts";
            string[] names = UsesNumbers(model.Name) ? NumberedNames : UsualNames;
            string[][] kinds = gateWithUp ? [names[..2], names[2..]] : [[names[0]], [names[1]], [names[2]]];
            for (int kind = 0; kind < kinds.Length; kind++)
            {
                float[] values = [.. Enumerable.Range(0, Experts).SelectMany(expert => kinds[kind].SelectMany(
                    name => model.Tensors[$"{module}.experts.{expert}.{name}.weight"].Values))];
                bool isDown = kind == kinds.Length - 1;
                string to = isDown ? "down_proj" : gateWithUp ? "gate_up_proj" : UsualNames[kind];
                model.Tensors.Add($"{fused}.{to}{suffix}", (
                    isDown ? [Experts, Hidden, Width] : [Experts, Width * kinds[kind].Length, Hidden], values));
            }
            (long[], float[]) router = model.Tensors[$"{module}.gate.weight"];
            model.Tensors.Remove($"{module}.gate.weight");
            model.Tensors[$"model.layers.{layer}.mlp.gate.weight"] = router;
            foreach (string name in model.Tensors.Keys.Where(name =>
                name.StartsWith($"{module}.experts.", StringComparison.Ordinal) && char.IsDigit(name[$"{module}.experts.".Length])).ToArray())
            {
                model.Tensors.Remove(name);
            }
        }
        return model;
    }

    /// <summary>Gives an expert another width.</summary>
    public static void Resize(TinyModel model, int layer, int expert, int width)
    {
        string name = $"{Module(model.Name, layer)}.experts.{expert}";
        string[] names = UsesNumbers(model.Name) ? NumberedNames : UsualNames;
        model.Tensors[$"{name}.{names[0]}.weight"] = ([width, Hidden], new float[width * Hidden]);
        model.Tensors[$"{name}.{names[1]}.weight"] = ([width, Hidden], new float[width * Hidden]);
        model.Tensors[$"{name}.{names[2]}.weight"] = ([Hidden, width], new float[width * Hidden]);
    }

    /// <summary>Takes an expert's tensors away, and nothing else.</summary>
    public static void Remove(TinyModel model, int layer, int expert)
    {
        string start = $"{Module(model.Name, layer)}.experts.{expert}.";
        foreach (string name in model.Tensors.Keys.Where(name => name.StartsWith(start, StringComparison.Ordinal)).ToArray())
        {
            model.Tensors.Remove(name);
        }
    }

    /// <summary>Takes the router's last rows away.</summary>
    public static void CutRouter(TinyModel model, int layer, int experts)
    {
        string name = $"{Module(model.Name, layer)}.gate.weight";
        model.Tensors[name] = ([experts, Hidden], model.Tensors[name].Values[..(experts * Hidden)]);
    }

    /// <summary>The weights of every slot of every layer that runs, in order: gate, up and down.</summary>
    public static float[][] Weights(Checkpoint checkpoint, ModelPlan plan) =>
        [.. plan.Layers.Steps.Select(step => plan.Layers.Blocks[step.Block].Experts).OfType<ExpertsPlan>()
            .SelectMany(static experts => experts.Slots)
            .SelectMany(static slot => (IEnumerable<(LinearPlan, LinearPart)>)
                [.. slot.In.Parts.Select(part => (slot.In, part)), .. slot.Down.Parts.Select(part => (slot.Down, part))])
            .Select(entry => checkpoint[entry.Item2.Weight!.Tensor].ToFloats()
                .AsSpan(entry.Item2.Weight!.FirstRow * entry.Item1.Inputs, entry.Item2.Outputs * entry.Item1.Inputs).ToArray())];

    private static void AddAttention(TinyModel model, string name, string family)
    {
        foreach ((string linear, int outputs) in new[] { ("q_proj", 32), ("k_proj", 16), ("v_proj", 16) })
        {
            model.AddMatrix($"{name}.{linear}.weight", outputs, Hidden, Hidden);
            if (family is "qwen2_moe" or "phimoe")
            {
                model.AddBias($"{name}.{linear}.bias", outputs);
            }
        }
        model.AddMatrix($"{name}.o_proj.weight", Hidden, 32, 32);
        if (family == "phimoe")
        {
            model.AddBias($"{name}.o_proj.bias", Hidden);
        }
        if (family is "qwen3_moe" or "olmoe")
        {
            model.AddGain($"{name}.q_norm.weight", family == "olmoe" ? 32 : 8);
            model.AddGain($"{name}.k_norm.weight", family == "olmoe" ? 16 : 8);
        }
    }

    private static void AddMixture(TinyModel model, string layer, string family)
    {
        string name = UsesNumbers(family) ? $"{layer}.block_sparse_moe" : $"{layer}.mlp";
        model.AddMatrix($"{name}.gate.weight", Experts, Hidden, Hidden);
        for (int expert = 0; expert < Experts; expert++)
        {
            AddFeedForward(model, $"{name}.experts.{expert}", Width, UsesNumbers(family) ? NumberedNames : UsualNames);
        }
        if (family == "qwen2_moe")
        {
            AddFeedForward(model, $"{name}.shared_expert", SharedWidth, UsualNames);
            model.AddMatrix($"{name}.shared_expert_gate.weight", 1, Hidden, Hidden);
        }
        else if (family == "deepseek")
        {
            AddFeedForward(model, $"{name}.shared_experts", SharedExperts * Width, UsualNames);
        }
    }

    private static void AddFeedForward(TinyModel model, string name, int width, string[] names)
    {
        model.AddMatrix($"{name}.{names[0]}.weight", width, Hidden, Hidden);
        model.AddMatrix($"{name}.{names[1]}.weight", width, Hidden, Hidden);
        model.AddMatrix($"{name}.{names[2]}.weight", Hidden, width, width);
    }
}
