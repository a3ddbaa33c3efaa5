using System.Collections.Immutable;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>
/// Reads linears that were compressed to a low-rank product and a few rows (Li et al. 2023, LoSparse; Li et al. 2024, MC-SMoE): under a linear's name
/// <c>left.weight</c> [outputs, rank], <c>right.weight</c> [rank, inputs], <c>sparse.weight</c> [outputs, inputs], most of whose rows are zero, and a
/// <c>bias</c> where there is one; y = left·(right·x) + sparse·x + bias. There may be no <c>sparse.weight</c>.
/// </summary>
internal static class LowRankReader
{
    private const string Left = ".left.weight", Right = ".right.weight", Sparse = ".sparse.weight";

    /// <summary>The linear is stored in this form.</summary>
    public static bool Has(TensorCatalog tensors, string name) =>
        tensors.Has(name + Left) || tensors.Has(name + Right) || tensors.Has(name + Sparse);

    /// <summary>Outputs and inputs of a linear as the first of its tensors that exists says them, whatever its form; null where none says.</summary>
    public static (long? Outputs, long? Inputs) ShapeOf(TensorCatalog tensors, string name) =>
        tensors.ShapeOf(name + ".weight") is [var outputs, var inputs] ? (outputs, inputs)
        : tensors.ShapeOf(name + Sparse) is [var rows, var columns] ? (rows, columns)
        : (tensors.ShapeOf(name + Left) is [var wide, _] ? wide : null, tensors.ShapeOf(name + Right) is [_, var narrow] ? narrow : null);

    /// <summary>A linear in either form. Of <c>sparse.weight</c> those rows are taken that are not zero, for which it is read.</summary>
    /// <param name="tensors">The tensors.</param>
    /// <param name="name">The linear.</param>
    /// <param name="outputs">Its outputs.</param>
    /// <param name="inputs">Its inputs.</param>
    /// <param name="biasRequired">There must be a bias; otherwise it is taken where there is one.</param>
    /// <exception cref="EngineException">Shapes do not fit each other.</exception>
    public static LinearPart Part(TensorCatalog tensors, string name, int outputs, int inputs, bool biasRequired = false)
    {
        if (!Has(tensors, name))
        {
            return tensors.Part(name, outputs, inputs, biasRequired);
        }
        int rank = Rank(tensors, name);
        LinearPart part = new(outputs, null, tensors.VectorOrNull(name + ".bias", outputs, biasRequired))
        {
            LowRank = new LowRankTerm(
                rank, tensors.Matrix(name + Right, rank, inputs), tensors.Matrix(name + Left, outputs, rank)),
        };
        if (!tensors.Has(name + Sparse))
        {
            return part;
        }
        WeightRef sparse = tensors.Matrix(name + Sparse, outputs, inputs);
        ImmutableArray<int> rows = NonZeroRows(tensors.Checkpoint[sparse.Tensor]);
        return rows.Length switch
        {
            0 => part,
            int all when all == outputs => part with { Weight = sparse },
            _ => part with { Weight = sparse, Rows = rows },
        };
    }

    /// <summary>Of <c>right.weight</c>, or of <c>left.weight</c> where there is no other: what is missing is said by whoever asks for it.</summary>
    private static int Rank(TensorCatalog tensors, string name)
    {
        (string tensor, long? rank) = tensors.ShapeOf(name + Right) is { Length: 2 } right ? (Right, right[0])
            : (Left, tensors.ShapeOf(name + Left) is { Length: 2 } left ? left[1] : (long?)null);
        return rank is null or (>= 1 and <= ConfigReader.LargestCount)
            ? (int)(rank ?? 1)
            : throw new EngineException($"expected a rank from 1 to {ConfigReader.LargestCount}, found {rank}", tensors.Checkpoint.Path, name + tensor);
    }

    /// <summary>
    /// Rows with an element that is not 0, in order. Their sums, which the authors' code looks at, can be 0 for others too; NaN is not 0, and is refused
    /// when the row is packed.
    /// </summary>
    private static ImmutableArray<int> NonZeroRows(TensorView tensor)
    {
        var rows = ImmutableArray.CreateBuilder<int>();
        var values = new float[tensor.Columns];
        for (int row = 0; row < tensor.Rows; row++)
        {
            tensor.DecodeRow(row, values);
            if (values.AsSpan().ContainsAnyExcept(0f))
            {
                rows.Add(row);
            }
        }
        tensor.Evict();
        return rows.ToImmutable();
    }
}
