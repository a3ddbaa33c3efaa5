using System.Buffers;
using System.Collections.Immutable;

namespace Engine.Checkpoints.Coded;

/// <summary>Which columns share a scale.</summary>
/// <param name="Order">Column of each place, groups being runs of places; empty where places are columns.</param>
/// <param name="GroupColumns">Places of a group.</param>
/// <param name="Groups">For each run of places, which scale it has; empty where run g has scale g.</param>
internal sealed record ColumnGroups(ImmutableArray<int> Order, int GroupColumns, ImmutableArray<int> Groups)
{
    /// <summary>Columns in runs.</summary>
    public static ColumnGroups Runs(int groupColumns) => new([], groupColumns, []);

    /// <summary>From the group of each column.</summary>
    public static ColumnGroups Of(int[] groupOfColumn, int groupColumns)
    {
        bool runs = true;
        for (int column = 0; column < groupOfColumn.Length && runs; column++)
        {
            runs = groupOfColumn[column] == column / groupColumns;
        }
        if (runs)
        {
            return Runs(groupColumns);
        }
        int[] order = [.. Enumerable.Range(0, groupOfColumn.Length).OrderBy(column => groupOfColumn[column])]; // Stable.
        for (int place = 0; place < order.Length; place++)
        {
            if (groupOfColumn[order[place]] != groupOfColumn[order[place / groupColumns * groupColumns]])
            {
                return new([], 1, [.. groupOfColumn]);
            }
        }
        ImmutableArray<int> groups = [.. Enumerable.Range(0, (order.Length + groupColumns - 1) / groupColumns).Select(run => groupOfColumn[order[run * groupColumns]])];
        return new([.. order], groupColumns, groups);
    }

    /// <summary>The scale of a run.</summary>
    public int ScaleOf(int run) => Groups.IsEmpty ? run : Groups[run];

    /// <summary>Brings codes that are read by column to their places.</summary>
    public CodeReader Arrange(int columns, CodeReader byColumn) => Order.IsEmpty ? byColumn : (row, codes) =>
    {
        byte[] read = ArrayPool<byte>.Shared.Rent(columns);
        byColumn(row, read.AsSpan(0, columns));
        for (int place = 0; place < codes.Length; place++)
        {
            codes[place] = read[Order[place]];
        }
        ArrayPool<byte>.Shared.Return(read);
    };
}
