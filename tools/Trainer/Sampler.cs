using System.Numerics.Tensors;
using Tools.StoryGrammar;

namespace Tools.Trainer;

/// <summary>Draws text from the trainer's own forward pass, to read what a run has learned without the engine.</summary>
internal static class Sampler
{
    /// <summary>Continues <paramref name="prompt"/> until the end of the text or <paramref name="limit"/> tokens.</summary>
    /// <param name="run">The trained weights and their tokenizer.</param>
    /// <param name="model">A model over those weights.</param>
    /// <param name="prompt">Text to go on from; may be empty.</param>
    /// <param name="temperature">0 takes the likeliest token.</param>
    /// <param name="dice">Source of chance.</param>
    /// <param name="limit">Most tokens to add.</param>
    internal static string Continue(TrainingRun run, LlamaModel model, string prompt, float temperature, Dice dice, int limit)
    {
        var tokens = new List<int> { run.Tokenizer.EndOfText };
        run.Tokenizer.Encode(prompt, tokens);
        for (int i = 0; i < limit; i++)
        {
            float[] logits = model.NextLogits([.. tokens]).ToArray();
            int next = temperature <= 0 ? TensorPrimitives.IndexOfMax<float>(logits) : Draw(logits, temperature, dice);
            tokens.Add(next);
            if (next == run.Tokenizer.EndOfText)
                break;
        }

        return run.Tokenizer.Decode(tokens);
    }

    private static int Draw(float[] logits, float temperature, Dice dice)
    {
        TensorPrimitives.Divide(logits, temperature, logits);
        TensorPrimitives.SoftMax<float>(logits, logits);
        double left = dice.NextDouble();
        for (int i = 0; i < logits.Length; i++)
        {
            left -= logits[i];
            if (left < 0)
                return i;
        }

        return TensorPrimitives.IndexOfMax<float>(logits);
    }
}
