namespace Engine.Cpu.Matmul;

/// <summary>A first look at a matrix that might be sparse.</summary>
internal static class DensitySample
{
    // Rows that are looked at. Those of a dense matrix say no here, and it is not read as a whole.
    private const int MostRows = 64;

    // How far the sample may be above what the matrix may have.
    private const double Error = 0.05;

    /// <summary>A sample of rows, spread over the matrix, does not show that more than a part of the elements are other than zero.</summary>
    /// <param name="rows">Rows.</param>
    /// <param name="inputs">Columns.</param>
    /// <param name="most">The part.</param>
    /// <param name="count">Counts the elements of a row that are not zero.</param>
    public static bool Allows(int rows, int inputs, double most, Func<int, int> count)
    {
        int taken = Math.Min(rows, MostRows);
        long kept = 0;
        for (int i = 0; i < taken; i++)
        {
            kept += count((int)((long)i * rows / taken));
        }
        return kept <= (most + Error) * inputs * taken;
    }
}
