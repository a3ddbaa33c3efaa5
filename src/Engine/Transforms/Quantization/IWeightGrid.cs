namespace Engine.Transforms.Quantization;

/// <summary>
/// A matrix [outputs, inputs] that is being rounded to numbers that a format has: neighbouring inputs of an output are fitted together, then their weights are rounded one by
/// one, in any order. Rows may be worked on by different threads.
/// </summary>
public interface IWeightGrid
{
    /// <summary>Neighbouring inputs that are fitted together; inputs are whole multiples of it.</summary>
    int GroupColumns { get; }

    /// <summary>Chooses the numbers that weights can become.</summary>
    /// <param name="row">The output.</param>
    /// <param name="column">The first of <see cref="GroupColumns"/> inputs.</param>
    /// <param name="weights">Their weights, finite.</param>
    void Fit(int row, int column, ReadOnlySpan<float> weights);

    /// <summary>Rounds a weight, finite, to the nearest of them.</summary>
    /// <returns>The number, as it will be decoded.</returns>
    float Round(int row, int column, float weight);
}
