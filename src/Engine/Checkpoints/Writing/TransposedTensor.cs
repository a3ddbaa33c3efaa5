namespace Engine.Checkpoints.Writing;

/// <summary>Columns of a matrix as rows.</summary>
internal static class TransposedTensor
{
    /// <summary>Every <paramref name="step"/>th column from the <paramref name="first"/> on, [⌈(columns − first) / step⌉, rows], as F32.</summary>
    public static TensorView Columns(TensorView matrix, long first = 0, long step = 1)
    {
        long rows = matrix.Shape[0], columns = matrix.Shape[1], taken = (columns - first + step - 1) / step;
        float[] values = matrix.ToFloats();
        var transposed = new float[rows * taken];
        for (long row = 0; row < rows; row++)
        {
            for (long column = 0; column < taken; column++)
                transposed[column * rows + row] = values[row * columns + first + column * step];
        }
        // The view holds the buffer; it is freed when the view is no longer reachable.
        return new MemoryCheckpoint().Add(matrix.Name, [taken, rows], transposed);
    }
}
