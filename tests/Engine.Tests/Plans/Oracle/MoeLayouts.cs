using System.Text.Json.Nodes;

namespace Engine.Tests.Plans.Oracle;

/// <summary>
/// Other ways to store the experts of <see cref="MoeModels"/>: <see cref="Fuse"/>, <see cref="Stack(TinyModel)"/> and <see cref="Encode"/> keep what a model computes, the others are done to it
/// before its logits are taken.
/// </summary>
internal static class MoeLayouts
{
    /// <summary>
    /// The layout of transformers 5: gate_up_proj [experts, 2 · width, hidden], gate rows first, and down_proj [experts, hidden, width], under mlp; the router moves
    /// along.
    /// </summary>
    public static void Fuse(TinyModel model) => Stack(model, static (gate, up) => [("gate_up_proj", [.. gate.Zip(up).SelectMany(static pair => (float[][])[pair.First, pair.Second])])], "");

    /// <summary>The layout of GGUF under Hugging Face's names: gate_proj and up_proj [experts, width, hidden], down_proj [experts, hidden, width].</summary>
    public static void Stack(TinyModel model) => Stack(model, static (gate, up) => [("gate_proj", gate), ("up_proj", up)], ".weight");

    /// <summary>gpt-oss' experts as MXFP4: [experts, out, in / 32, 16] codes and [experts, out, in / 32] scales.</summary>
    public static void Encode(TinyModel model)
    {
        foreach ((string name, (long[] shape, float[] values)) in model.Tensors.ToArray())
        {
            if (shape.Length == 3 && name.EndsWith("_proj", StringComparison.Ordinal))
            {
                (int inputs, int outputs) = ((int)shape[1], (int)shape[2]);
                float[] turned = [.. values.Chunk(inputs * outputs).SelectMany(matrix =>
                    Enumerable.Range(0, matrix.Length).Select(at => matrix[at % inputs * outputs + at / inputs]))];
                (byte[] blocks, byte[] scales) = Mxfp4.Encode(turned);
                model.Tensors.Remove(name);
                model.Codes.Add(name + "_blocks", ([shape[0], outputs, inputs / 32, 16], blocks));
                model.Codes.Add(name + "_scales", ([shape[0], outputs, inputs / 32], scales));
            }
        }
        model.Config["quantization_config"] = JsonNode.Parse("""
            {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
            """);
    }

    /// <summary>Experts 1 and 4 become byte for byte expert 0, and expert 5 becomes expert 2, as merged checkpoints have them.</summary>
    public static void Merge(TinyModel model) => Copy(model, static expert => expert switch { 1 or 4 => 0, 5 => 2, _ => expert });

    /// <summary>All experts become expert 0.</summary>
    public static void Unite(TinyModel model) => Copy(model, static _ => 0);

    /// <summary>Experts keep different numbers of their neurons: all, half, one, all but one, and so on.</summary>
    public static void Trim(TinyModel model) => Keep(model, static (expert, width) => (expert % 4) switch { 1 => width / 2, 2 => 1, 3 => width - 1, _ => width });

    /// <summary>Like <see cref="Trim"/>, and expert 1 keeps none.</summary>
    public static void Empty(TinyModel model) => Keep(model, static (expert, width) => (expert % 4) switch { 1 when expert == 1 => 0, 2 => width / 2, _ => width });

    /// <summary>
    /// Linears become LoSparse's left [out, rank], right [rank, in] and sparse [out, in] with a bias in places; of sparse rows some are zero, some of them
    /// −0, all, none, or all but one, and some sum to 0. Expert 2 has no sparse at all.
    /// </summary>
    public static void Compress(TinyModel model)
    {
        (string gate, string up, string down) = MoeModels.Projections(model.Config);
        foreach (string prefix in Mixtures(model))
        {
            for (int expert = 0; expert < MoeModels.Experts(model.Config); expert++)
            {
                foreach ((int kind, string linear) in new[] { gate, up, down }.Index())
                {
                    string name = $"{prefix}experts.{expert}.{linear}";
                    if (expert == 4 && kind == 1)
                    {
                        continue; // a whole matrix beside compressed ones
                    }
                    (long[] shape, float[] values) = model.Tensors[name + ".weight"];
                    (int outputs, int inputs) = ((int)shape[0], (int)shape[1]);
                    int rank = 1 + (expert + 2 * kind) % 5;
                    model.Tensors.Remove(name + ".weight");
                    model.AddMatrix(name + ".left.weight", outputs, rank, rank);
                    model.AddMatrix(name + ".right.weight", rank, inputs, inputs);
                    if ((expert + kind) % 2 == 0)
                    {
                        model.AddBias(name + ".bias", outputs);
                    }
                    if (expert == 2)
                    {
                        continue;
                    }
                    Func<int, bool> kept = ((expert + kind) % 5) switch
                    {
                        0 => static _ => false,
                        1 => static _ => true,
                        2 => static row => row == 0,
                        3 => static row => row != 3,
                        _ => static row => row % 3 == 1,
                    };
                    model.Tensors.Add(name + ".sparse.weight", (shape, [.. values.Select((value, i) =>
                        !kept(i / inputs) ? i % 2 == 0 ? 0f : -0f
                        : i / inputs == 1 ? (i % inputs) switch { 0 => 0.5f, 1 => -0.5f, _ => 0f }
                        : value)]));
                }
            }
        }
    }

    /// <summary>Layer l loses its last l experts, as pruned checkpoints have it, but keeps as many as a token is sent to.</summary>
    public static void Prune(TinyModel model)
    {
        int experts = MoeModels.Experts(model.Config);
        foreach ((int lost, string prefix) in Mixtures(model).Index())
        {
            int kept = Math.Max(experts - lost, (int)model.Config["num_experts_per_tok"]!);
            foreach (string name in model.Tensors.Keys.Where(name => Enumerable.Range(kept, experts - kept)
                .Any(expert => name.StartsWith($"{prefix}experts.{expert}.", StringComparison.Ordinal))).ToArray())
            {
                model.Tensors.Remove(name);
            }
            foreach (string tensor in (string[])["gate.weight", "weight2"])
            {
                if (model.Tensors.TryGetValue(prefix + tensor, out (long[] Shape, float[] Values) found))
                {
                    model.Tensors[prefix + tensor] = ([kept, found.Shape[1]], found.Values[..(kept * (int)found.Shape[1])]);
                }
            }
        }
    }

    /// <summary>Exchanges expert e and experts − 1 − e everywhere.</summary>
    public static void Reverse(TinyModel model)
    {
        int experts = MoeModels.Experts(model.Config);
        Copy(model, expert => experts - 1 - expert);
        foreach (string prefix in Mixtures(model))
        {
            foreach (string tensor in (string[])["gate.weight", "router.weight", "router.bias", "weight2", "gate.e_score_correction_bias"])
            {
                if (model.Tensors.TryGetValue(prefix + tensor, out (long[] Shape, float[] Values) found))
                {
                    model.Tensors[prefix + tensor] = (found.Shape, [.. found.Values.Chunk(found.Values.Length / experts).Reverse().SelectMany(static row => row)]);
                }
            }
        }
    }

    /// <summary>What the names of each mixture begin with.</summary>
    public static IEnumerable<string> Mixtures(TinyModel model) => Enumerable.Range(0, (int)model.Config["num_hidden_layers"]!)
        .Where(layer => MoeModels.IsSparse(model.Config, layer))
        .Select(layer => $"model.layers.{layer}.{MoeModels.Mixture(model.Config)}")
        .ToArray();

    /// <param name="model">The model.</param>
    /// <param name="combine">From each expert's gate and up to tensors of all experts.</param>
    /// <param name="ending">What their names end in.</param>
    private static void Stack(TinyModel model, Func<float[][], float[][], (string Name, float[][] Parts)[]> combine, string ending)
    {
        string mixture = MoeModels.Mixture(model.Config);
        (string gate, string up, string down) = MoeModels.Projections(model.Config);
        int experts = MoeModels.Experts(model.Config);
        foreach (string prefix in Mixtures(model))
        {
            string target = prefix[..^mixture.Length] + "mlp.";
            long[] shape = model.Tensors[$"{prefix}experts.0.{down}.weight"].Shape;
            (long hidden, long width) = (shape[0], shape[1]);
            foreach ((string name, float[][] parts) in combine(All(gate), All(up)))
            {
                model.Tensors.Add($"{target}experts.{name}{ending}", ([experts, parts.Length / experts * width, hidden], [.. parts.SelectMany(static part => part)]));
            }
            model.Tensors.Add($"{target}experts.down_proj{ending}", ([experts, hidden, width], [.. All(down).SelectMany(static part => part)]));
            if (target != prefix)
            {
                string router = (string)model.Config["model_type"]! == "phimoe" ? "router" : "gate";
                model.Tensors.Add($"{target}{router}.weight", Take(prefix + "gate.weight"));
            }

            float[][] All(string linear) => [.. Enumerable.Range(0, experts).Select(expert => Take($"{prefix}experts.{expert}.{linear}.weight").Values)];
        }

        (long[] Shape, float[] Values) Take(string tensor)
        {
            (long[], float[]) taken = model.Tensors[tensor];
            model.Tensors.Remove(tensor);
            return taken;
        }
    }

    /// <summary>Expert e becomes what expert source(e) was.</summary>
    public static void Copy(TinyModel model, Func<int, int> source)
    {
        int experts = MoeModels.Experts(model.Config);
        foreach (string prefix in Mixtures(model))
        {
            Dictionary<string, (long[] Shape, float[] Values)> before = model.Tensors.Where(pair => pair.Key.StartsWith(prefix + "experts.", StringComparison.Ordinal))
                .ToDictionary(static pair => pair.Key, static pair => pair.Value);
            foreach ((string name, (long[] shape, float[] values)) in before)
            {
                string[] parts = name[(prefix + "experts.").Length..].Split('.', 2);
                if (int.TryParse(parts[0], out int expert))
                {
                    model.Tensors[name] = before[$"{prefix}experts.{source(expert)}.{parts[1]}"];
                }
                else
                {
                    float[][] each = [.. values.Chunk(values.Length / experts)];
                    model.Tensors[name] = (shape, [.. each.SelectMany((_, e) => each[source(e)])]);
                }
            }
        }
    }

    private static void Keep(TinyModel model, Func<int, int, int> kept)
    {
        (string gate, string up, string down) = MoeModels.Projections(model.Config);
        foreach (string prefix in Mixtures(model))
        {
            for (int expert = 0; expert < MoeModels.Experts(model.Config); expert++)
            {
                string name = $"{prefix}experts.{expert}.";
                foreach (string linear in (string[])[gate, up])
                {
                    (long[] shape, float[] values) = model.Tensors[$"{name}{linear}.weight"];
                    int rows = kept(expert, (int)shape[0]);
                    model.Tensors[$"{name}{linear}.weight"] = ([rows, shape[1]], values[..(rows * (int)shape[1])]);
                }
                (long[] wide, float[] all) = model.Tensors[$"{name}{down}.weight"];
                int columns = kept(expert, (int)wide[1]);
                model.Tensors[$"{name}{down}.weight"] = ([wide[0], columns], [.. all.Chunk((int)wide[1]).SelectMany(row => row[..columns])]);
            }
        }
    }
}
