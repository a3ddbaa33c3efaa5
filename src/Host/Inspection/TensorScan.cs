using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Engine;
using Engine.Checkpoints;

namespace Host.Inspection;

/// <summary>What a tensor's data says about itself: what is zero, and which parts of it are elsewhere too.</summary>
/// <param name="Zeros">Elements that are exactly zero after dequantization.</param>
/// <param name="ZeroRows">Rows that are zero throughout: pruned outputs.</param>
/// <param name="TwoOfFour">Of every four neighbours in a row at least two are zero.</param>
/// <param name="SliceDigests">SHA-256 of each outermost slice where there are three dimensions or more (experts), else of the whole
/// tensor.</param>
internal sealed record TensorScan(long Zeros, long ZeroRows, bool TwoOfFour, IReadOnlyList<string> SliceDigests)
{
    private const int Group = 4, AllowedInGroup = 2;

    /// <summary>Reads a tensor once, a row at a time.</summary>
    public static TensorScan Of(TensorView tensor, CancellationToken cancellationToken)
    {
        if (tensor.ElementCount == 0)
        {
            // A dimension of zero says nothing about the others, which may be too large for anything.
            return new TensorScan(0, 0, false, []);
        }
        if (tensor.Columns > Array.MaxLength)
        {
            throw new EngineException($"rows of {tensor.Columns} elements do not fit in an array (--no-scan leaves the data alone)",
                item: tensor.Name);
        }
        long rowsPerSlice = tensor.Shape.Length > 2 ? tensor.Rows / tensor.Shape[0] : tensor.Rows;
        float[] values = new float[tensor.Columns];
        long zeros = 0, zeroRows = 0;
        bool twoOfFour = tensor.Shape.Length >= 2 && values.Length % Group == 0;
        List<string> digests = [];
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        for (long row = 0; row < tensor.Rows; row++)
        {
            if (row % 256 == 0)
            {
                cancellationToken.ThrowIfCancellationRequested();
            }
            tensor.DecodeRow(row, values);
            hash.AppendData(tensor.Coded is null ? tensor.Row(row) : MemoryMarshal.AsBytes<float>(values));
            int zerosOfRow = values.AsSpan().Count(0f);
            zeros += zerosOfRow;
            zeroRows += zerosOfRow == values.Length ? 1 : 0;
            // A row that is not half zero cannot have the pattern, and most are not: the groups are looked at rarely.
            twoOfFour = twoOfFour && 2 * zerosOfRow >= values.Length && HasPattern(values);
            if ((row + 1) % rowsPerSlice == 0)
            {
                digests.Add(Convert.ToHexString(hash.GetHashAndReset()));
            }
        }
        tensor.Evict();
        // An all-zero tensor follows every pattern; that says nothing.
        return new TensorScan(zeros, zeroRows, twoOfFour && zeros < tensor.ElementCount, digests);
    }

    private static bool HasPattern(ReadOnlySpan<float> row)
    {
        for (int start = 0; start < row.Length; start += Group)
        {
            if (row.Slice(start, Group).Count(0f) < Group - AllowedInGroup)
            {
                return false;
            }
        }
        return true;
    }
}
