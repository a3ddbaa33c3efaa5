using System.Numerics.Tensors;
using Engine.Checkpoints;

namespace Engine.Transforms.Pruning;

/// <summary>
/// Which weights of a matrix matter least, decided before any of them changes. Of equal ones the first goes. Results do not depend on the number of threads.
/// </summary>
public static class PruningMask
{
    /// <summary>The smallest weights of the whole matrix, or of each four inputs (Han et al. 2015).</summary>
    /// <param name="weights">[rows, columns].</param>
    /// <param name="rows">Outputs.</param>
    /// <param name="columns">Inputs.</param>
    /// <param name="pattern">How many, and where.</param>
    /// <returns>[rows, columns], true for weights that become zero.</returns>
    public static bool[] Magnitude(ReadOnlyMemory<float> weights, int rows, int columns, SparsityPattern pattern)
    {
        ArgumentNullException.ThrowIfNull(pattern);
        float[] scores = new float[rows * columns];
        TensorPrimitives.Abs(weights.Span, scores);
        bool[] pruned = new bool[scores.Length];
        if (pattern.IsTwoOfFour)
        {
            Parallel.For(0, rows, row => MarkGroups(scores.AsSpan(row * columns, columns), pruned.AsSpan(row * columns, columns)));
        }
        else
        {
            MarkSmallest(scores, pattern.CountOf(scores.Length), pruned);
        }
        return pruned;
    }

    /// <summary>The weights with the smallest |w|·‖x‖ of each output, or of each four of its inputs (Sun et al. 2023, Wanda).</summary>
    /// <param name="weights">[rows, columns].</param>
    /// <param name="rows">Outputs.</param>
    /// <param name="columns">Inputs.</param>
    /// <param name="pattern">How many, and where.</param>
    /// <param name="norms">‖x‖ of each input over the rows of a calibration text, [columns].</param>
    /// <returns>[rows, columns], true for weights that become zero.</returns>
    public static bool[] Wanda(ReadOnlyMemory<float> weights, int rows, int columns, SparsityPattern pattern, float[] norms)
    {
        ArgumentNullException.ThrowIfNull(pattern);
        bool[] pruned = new bool[rows * columns];
        Parallel.For(0, rows, row =>
        {
            float[] scores = new float[columns];
            TensorPrimitives.Abs(weights.Span.Slice(row * columns, columns), scores);
            TensorPrimitives.Multiply(scores, norms, scores);
            Span<bool> marks = pruned.AsSpan(row * columns, columns);
            if (pattern.IsTwoOfFour)
            {
                MarkGroups(scores, marks);
            }
            else
            {
                MarkSmallest(scores, pattern.CountOf(columns), marks);
            }
        });
        return pruned;
    }

    /// <summary>Marks two of each four scores.</summary>
    public static void MarkGroups(ReadOnlySpan<float> scores, Span<bool> pruned)
    {
        for (int first = 0; first < scores.Length; first += SparsityPattern.GroupColumns)
        {
            ReadOnlySpan<float> group = scores.Slice(first, SparsityPattern.GroupColumns);
            for (int i = 0; i < group.Length; i++)
            {
                int smaller = 0;
                for (int j = 0; j < group.Length; j++)
                {
                    smaller += group[j] < group[i] || (group[j] == group[i] && j < i) ? 1 : 0;
                }
                pruned[first + i] = smaller < SparsityPattern.GroupColumns - SparsityPattern.Kept;
            }
        }
    }

    /// <summary>Marks the smallest scores, exactly as many as asked for.</summary>
    public static void MarkSmallest(ReadOnlySpan<float> scores, int count, Span<bool> pruned)
    {
        if (count == 0)
        {
            pruned.Clear();
            return;
        }
        float[] sorted = scores.ToArray();
        Array.Sort(sorted);
        float last = sorted[count - 1];
        int equal = count - sorted.AsSpan().IndexOf(last); // of those that equal the last, so many go
        for (int i = 0; i < scores.Length; i++)
        {
            pruned[i] = scores[i] < last || (scores[i] == last && equal-- > 0);
        }
    }
}
