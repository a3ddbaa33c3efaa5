using Engine.Checkpoints;
using Engine.Checkpoints.Writing;

namespace Tools.Trainer;

/// <summary>Writes a run as a GGUF file of the architecture llama, with its tokenizer, for this engine and every other reader.</summary>
internal static class GgufExport
{
    private const int NormalToken = 1;
    private const int ControlToken = 3;

    // GGUF's general.file_type.
    private static readonly Dictionary<DType, uint> fileTypes = new() { [DType.F32] = 0, [DType.F16] = 1, [DType.Q8_0] = 7 };

    /// <summary>Writes <paramref name="path"/> with matrices stored as <paramref name="dtype"/> and norms as float32.</summary>
    internal static void Write(TrainingRun run, string path, DType dtype) =>
        GgufWriter.Write(path, Metadata(run, dtype), [.. Tensors(run, dtype)]);

    private static Dictionary<string, object> Metadata(TrainingRun run, DType dtype)
    {
        LlamaShape shape = run.Plan.Shape;
        BytePairEncoding tokenizer = run.Tokenizer;
        long seen = (long)run.Step * run.Plan.Sequences * run.Plan.Length;
        var types = new int[tokenizer.Tokens.Count];
        Array.Fill(types, NormalToken);
        types[tokenizer.EndOfText] = ControlToken;
        return new Dictionary<string, object>
        {
            ["general.architecture"] = "llama",
            ["general.name"] = "Stories",
            ["general.description"] =
                $"Short children's stories, trained by tools/Trainer on {seen} tokens from tools/StoryGrammar, seed {run.Plan.Seed}",
            ["general.file_type"] = fileTypes[dtype],
            ["general.quantization_version"] = 2u,
            ["llama.vocab_size"] = (uint)shape.Vocabulary,
            ["llama.context_length"] = (uint)shape.Context,
            ["llama.embedding_length"] = (uint)shape.Dimension,
            ["llama.block_count"] = (uint)shape.Layers,
            ["llama.feed_forward_length"] = (uint)shape.FeedForward,
            ["llama.attention.head_count"] = (uint)shape.Heads,
            ["llama.attention.head_count_kv"] = (uint)shape.KvHeads,
            ["llama.attention.layer_norm_rms_epsilon"] = LlamaShape.NormEpsilon,
            ["llama.rope.dimension_count"] = (uint)shape.HeadDimension,
            ["llama.rope.freq_base"] = LlamaShape.RopeBase,
            ["tokenizer.ggml.model"] = "gpt2",
            ["tokenizer.ggml.pre"] = "gpt-2",
            ["tokenizer.ggml.tokens"] = tokenizer.Tokens.ToArray(),
            ["tokenizer.ggml.token_type"] = types,
            ["tokenizer.ggml.merges"] = tokenizer.Merges.Select(static merge => $"{merge.Left} {merge.Right}").ToArray(),
            ["tokenizer.ggml.bos_token_id"] = (uint)tokenizer.EndOfText,
            ["tokenizer.ggml.eos_token_id"] = (uint)tokenizer.EndOfText,
            ["tokenizer.ggml.add_bos_token"] = true,
            ["tokenizer.ggml.add_eos_token"] = false,
        };
    }

    private static IEnumerable<TensorSource> Tensors(TrainingRun run, DType dtype)
    {
        LlamaShape shape = run.Plan.Shape;
        LlamaParameters parameters = run.Parameters;
        yield return Rows("token_embd.weight", parameters.Embedding, 0, shape.Vocabulary);
        for (int i = 0; i < shape.Layers; i++)
        {
            LlamaParameters.Layer layer = parameters.Layers[i];
            yield return Rows($"blk.{i}.attn_norm.weight", layer.AttentionNorm, 0, 1);
            // The trainer rotates neighbouring pairs, which is the row order that GGUF wants of llama's q and k.
            yield return Rows($"blk.{i}.attn_q.weight", layer.Qkv, 0, shape.Dimension);
            yield return Rows($"blk.{i}.attn_k.weight", layer.Qkv, shape.Dimension, shape.KvWidth);
            yield return Rows($"blk.{i}.attn_v.weight", layer.Qkv, shape.Dimension + shape.KvWidth, shape.KvWidth);
            yield return Rows($"blk.{i}.attn_output.weight", layer.AttentionOutput, 0, shape.Dimension);
            yield return Rows($"blk.{i}.ffn_norm.weight", layer.FeedForwardNorm, 0, 1);
            yield return Rows($"blk.{i}.ffn_gate.weight", layer.GateUp, 0, shape.FeedForward);
            yield return Rows($"blk.{i}.ffn_up.weight", layer.GateUp, shape.FeedForward, shape.FeedForward);
            yield return Rows($"blk.{i}.ffn_down.weight", layer.Down, 0, shape.Dimension);
        }

        yield return Rows("output_norm.weight", parameters.OutputNorm, 0, 1);

        TensorSource Rows(string name, Parameter parameter, int first, int count)
        {
            float[] values = parameters[parameter].Slice(first * parameter.Columns, count * parameter.Columns).ToArray();
            return parameter.Rows == 1
                ? TensorSource.FromValues(name, [parameter.Columns], values)
                : TensorSource.FromValues(name, [count, parameter.Columns], values, dtype);
        }
    }
}
