using System.Numerics.Tensors;
using Engine.Checkpoints;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;

namespace Engine.Transforms.Calibration;

/// <summary>
/// The sweep that GPTQ (Frantar et al. 2022) and SparseGPT (Frantar and Alistarh 2023) share: inputs are fixed one after the other, to zero or to a number of a grid,
/// and what an output loses by it, measured by H = Σ x·xᵀ, is made up for by the inputs that come after. With U of <see cref="InverseFactor"/>, fixing w_j as v
/// costs ((w_j − v) / U_jj)² and changes w_k by −(w_j − v) / U_jj · U_jk for k above j. Errors reach inputs behind the block of <see cref="Block"/> only when
/// it is done. Outputs do not depend on each other but where a part of all weights of a block is pruned; results do not depend on the number of threads.
/// </summary>
public sealed class OptimalBrainSurgeon
{
    /// <summary>Inputs that are fixed before those behind them hear of it; an unstructured mask is chosen for so many at a time.</summary>
    public const int Block = 128;

    private const int TailColumns = 512, RowTile = 8;

    private readonly float[] weights, factor, errors;
    private readonly int rows, columns;
    private readonly SparsityPattern? pattern;
    private readonly bool[] pruned;
    private readonly IWeightGrid? target;
    private readonly int[]? order;

    private OptimalBrainSurgeon(
        float[] weights, int rows, int columns, float[] factor, SparsityPattern? pattern, bool[]? pruned, IWeightGrid? target, int[]? order)
    {
        (this.weights, this.rows, this.columns, this.factor, this.pattern, this.target, this.order) = (weights, rows, columns, factor, pattern, target, order);
        this.pruned = pruned ?? new bool[weights.Length];
        errors = new float[rows * Block];
    }

    /// <summary>Prunes, quantizes, or does both at once.</summary>
    /// <param name="weights">[rows, columns]; replaced by what remains of them.</param>
    /// <param name="rows">Outputs.</param>
    /// <param name="columns">Inputs; whole groups of the pattern and of the grid.</param>
    /// <param name="factor">U, [columns, columns]; its rows and columns are inputs in the order in which they are fixed.</param>
    /// <param name="pattern">What SparseGPT prunes; null for nothing.</param>
    /// <param name="pruned">Weights that another criterion has chosen, [rows, columns]; null for none. Not together with <paramref name="pattern"/>.</param>
    /// <param name="target">Takes the codes of GPTQ; null where weights are not quantized.</param>
    /// <param name="order">
    /// The inputs in the order in which they are fixed; null for the order they have. Groups of <paramref name="target"/> then are fitted to the weights as they come, before
    /// any is rounded (GPTQ's act-order with static groups). Not together with <paramref name="pattern"/>, which chooses among neighbours.
    /// </param>
    public static void Run(
        float[] weights, int rows, int columns, float[] factor, SparsityPattern? pattern, bool[]? pruned = null, IWeightGrid? target = null, int[]? order = null)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(factor);
        ArgumentOutOfRangeException.ThrowIfNotEqual(weights.Length, rows * columns, nameof(weights));
        ArgumentOutOfRangeException.ThrowIfNotEqual(factor.Length, columns * columns, nameof(factor));
        if (pattern is not null && pruned is not null)
        {
            throw new ArgumentException("weights are chosen beforehand or during the sweep, not both", nameof(pruned));
        }
        if (order is null)
        {
            new OptimalBrainSurgeon(weights, rows, columns, factor, pattern, pruned, target, order).Sweep();
            return;
        }
        ArgumentOutOfRangeException.ThrowIfNotEqual(order.Length, columns, nameof(order));
        if (pattern is not null)
        {
            throw new ArgumentException("a pattern chooses among neighbours, which are fixed one behind the other", nameof(order));
        }
        for (int column = 0; column < columns && target is not null; column += target.GroupColumns)
        {
            int first = column;
            Parallel.For(0, rows, row => target.Fit(row, first, weights.AsSpan(row * columns + first, target.GroupColumns)));
        }
        float[] ordered = Reorder(weights, rows, order);
        new OptimalBrainSurgeon(
            ordered, rows, columns, factor, pattern, pruned is null ? null : Reorder(pruned, rows, order), target, order).Sweep();
        int[] back = new int[columns];
        for (int i = 0; i < columns; i++)
        {
            back[order[i]] = i;
        }
        Reorder(ordered, rows, back).CopyTo(weights, 0);
    }

    /// <summary>The columns of a matrix in another order.</summary>
    private static T[] Reorder<T>(T[] matrix, int rows, int[] order)
    {
        T[] ordered = new T[matrix.Length];
        Parallel.For(0, rows, row =>
        {
            int first = row * order.Length;
            for (int i = 0; i < order.Length; i++)
            {
                ordered[first + i] = matrix[first + order[i]];
            }
        });
        return ordered;
    }

    private void Sweep()
    {
        for (int first = 0; first < columns; first += Block)
        {
            int start = first, width = Math.Min(Block, columns - first);
            if (pattern is { IsTwoOfFour: false })
            {
                Choose(start, width);
            }
            Parallel.For(0, rows, row => SweepRow(row, start, width));
            if (start + width < columns)
            {
                Parallel.For(0, (rows + RowTile - 1) / RowTile, tile => Compensate(tile * RowTile, start, width));
            }
        }
    }

    /// <summary>Marks the part of the block's weights whose loss is least: w² / U_jj².</summary>
    private void Choose(int first, int width)
    {
        float[] scores = new float[rows * width];
        Parallel.For(0, rows, row => Losses(row, first, scores.AsSpan(row * width, width)));
        bool[] chosen = new bool[scores.Length];
        PruningMask.MarkSmallest(scores, pattern!.CountOf(scores.Length), chosen);
        for (int row = 0; row < rows; row++)
        {
            chosen.AsSpan(row * width, width).CopyTo(pruned.AsSpan(row * columns + first, width));
        }
    }

    /// <summary>|w_j| / U_jj, which orders weights as the square does.</summary>
    private void Losses(int row, int first, Span<float> losses)
    {
        for (int i = 0; i < losses.Length; i++)
        {
            losses[i] = MathF.Abs(weights[row * columns + first + i]) / factor[(first + i) * columns + first + i];
        }
    }

    private void SweepRow(int row, int first, int width)
    {
        Span<float> values = weights.AsSpan(row * columns, columns);
        Span<bool> zero = pruned.AsSpan(row * columns, columns);
        Span<float> losses = stackalloc float[SparsityPattern.GroupColumns];
        int end = first + width;
        for (int j = first; j < end; j++)
        {
            if (pattern is { IsTwoOfFour: true } && j % SparsityPattern.GroupColumns == 0)
            {
                Losses(row, j, losses);
                PruningMask.MarkGroups(losses, zero.Slice(j, SparsityPattern.GroupColumns));
            }
            if (target is not null && order is null && j % target.GroupColumns == 0)
            {
                target.Fit(row, j, values.Slice(j, target.GroupColumns));
            }
            float kept = zero[j] ? 0 : values[j];
            if (target is not null)
            {
                kept = target.Round(row, order?[j] ?? j, kept);
            }
            ReadOnlySpan<float> influence = factor.AsSpan(j * columns, columns);
            float error = (values[j] - kept) / influence[j];
            errors[row * Block + j - first] = error;
            values[j] = kept;
            Span<float> rest = values[(j + 1)..end];
            TensorPrimitives.MultiplyAdd(influence[(j + 1)..end], -error, rest, rest);
        }
    }

    /// <summary>Brings the errors of a block to the inputs behind it, for a few outputs, by pieces that stay in the cache.</summary>
    private void Compensate(int firstRow, int first, int width)
    {
        for (int column = first + width; column < columns; column += TailColumns)
        {
            int length = Math.Min(TailColumns, columns - column);
            for (int row = firstRow; row < Math.Min(firstRow + RowTile, rows); row++)
            {
                Span<float> tail = weights.AsSpan(row * columns + column, length);
                for (int j = 0; j < width; j++)
                {
                    TensorPrimitives.MultiplyAdd(factor.AsSpan((first + j) * columns + column, length), -errors[row * Block + j], tail, tail);
                }
            }
        }
    }
}
