using Engine.Checkpoints;
using Engine.Plans;
using Engine.Transforms.Calibration;

namespace Engine.Compression;

/// <summary>What the heads of an attention bring: Σ ‖W_h·a_h‖² over the rows of a text, a_h the result of head h and W_h its columns of the output projection.</summary>
internal sealed class HeadStatistics(AttentionPlan attention)
{
    private readonly int width = attention.Output.Inputs / attention.Heads;
    private readonly SecondMoment[] moments =
        [.. Enumerable.Range(0, attention.Heads).Select(_ => new SecondMoment(attention.Output.Inputs / attention.Heads, full: true))];

    /// <summary>Adds rows that go into the output projection, [count, heads × width].</summary>
    public void Add(int count, ReadOnlySpan<float> inputs)
    {
        float[] rows = new float[count * width];
        for (int head = 0; head < moments.Length; head++)
        {
            for (int row = 0; row < count; row++)
            {
                inputs.Slice((row * moments.Length + head) * width, width).CopyTo(rows.AsSpan(row * width));
            }
            moments[head].Add(rows, count);
        }
    }

    /// <summary>What each head brings, [heads]: Σ ‖W·a‖² = tr(W·M·Wᵀ) with M = Σ a·aᵀ.</summary>
    /// <param name="output">The output projection, [outputs, heads × width].</param>
    public double[] Scores(TensorView output)
    {
        float[] weights = output.ToFloats();
        int columns = (int)output.Columns;
        double[] scores = new double[moments.Length];
        Parallel.For(0, scores.Length, head =>
        {
            float[] moment = moments[head].ToMatrix();
            for (int row = 0; row < output.Rows; row++)
            {
                ReadOnlySpan<float> part = weights.AsSpan(row * columns + head * width, width);
                for (int i = 0; i < width; i++)
                {
                    double sum = 0;
                    for (int j = 0; j < width; j++)
                    {
                        sum += (double)moment[i * width + j] * part[j];
                    }
                    scores[head] += part[i] * sum;
                }
            }
        });
        return scores;
    }
}
