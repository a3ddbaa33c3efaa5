using Tools.StoryGrammar;

namespace Tools.Trainer;

/// <summary>Compares the backward pass with differences of the loss, on a tiny model.</summary>
internal static unsafe class GradientCheck
{
    /// <returns>The largest disagreement found, relative to the largest gradient of its parameter.</returns>
    internal static double Run(ulong seed, TextWriter output)
    {
        var shape = new LlamaShape(Vocabulary: 320, Dimension: 64, Layers: 2, Heads: 4, KvHeads: 2, FeedForward: 96, Context: 128);
        using var parameters = new LlamaParameters(shape);
        var dice = new Dice(seed);
        parameters.Initialise(dice);
        using var model = new LlamaModel(parameters, 2 * 64);
        var tokenizer = BytePairEncoding.Learn([StoryGenerator.Write(seed)], shape.Vocabulary);
        ulong story = seed;
        Batch batch = Batch.OfStories(tokenizer, ref story, 2, 64);
        model.Train(batch);

        double worst = 0;
        foreach (Parameter parameter in parameters.All)
        {
            var gradients = new ReadOnlySpan<float>(parameters.Gradients + parameter.Offset, parameter.Length);
            float scale = System.Numerics.Tensors.TensorPrimitives.MaxMagnitude(gradients);
            double worstHere = 0;
            for (int trial = 0; trial < 12; trial++)
            {
                int at = dice.Next(parameter.Length);
                ref float weight = ref parameters.Weights[parameter.Offset + at];
                float kept = weight;
                const float step = 4e-3f;
                weight = kept + step;
                double above = model.Evaluate(batch);
                weight = kept - step;
                double below = model.Evaluate(batch);
                weight = kept;
                worstHere = Math.Max(worstHere, Math.Abs((above - below) / (2 * step) - gradients[at]) / Math.Abs(scale));
            }

            output.WriteLine($"{parameter.Name,-22} {worstHere:E2}");
            worst = double.IsNaN(worstHere) ? double.PositiveInfinity : Math.Max(worst, worstHere);
        }

        return worst;
    }
}
