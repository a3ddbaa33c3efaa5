namespace Engine.Checkpoints.Coded;

/// <summary>The ways in which files store scales.</summary>
internal static class ScaleReaders
{
    /// <summary>
    /// Scales [rows, groups], [rows], [1] or, of blocks of rows, [⌈rows / rowsPerScale⌉, groups]; zero points none.
    /// </summary>
    /// <param name="scales">The tensor.</param>
    /// <param name="rowsPerScale">Rows that share scales; <see cref="long.MaxValue"/> for all.</param>
    /// <param name="perRow">Scales of a row in the tensor.</param>
    /// <param name="groups">Which of them each run has; null for its own number.</param>
    public static ScaleReader Floats(TensorView scales, long rowsPerScale, int perRow, ColumnGroups? groups = null) => (row, destination, _) =>
    {
        long first = row / rowsPerScale * perRow;
        for (int i = 0; i < destination.Length; i++)
        {
            destination[i] = scales.Float(first + (groups?.ScaleOf(i) ?? i));
        }
    };
}
