using System.Numerics;

namespace Engine.Transforms.Calibration;

/// <summary>
/// Products of rows with rows, A·Bᵀ, in float32: what second moments and factorizations spend their time with. An element's sum is the same whatever elements are
/// computed with it, so results do not depend on how the work is divided.
/// </summary>
internal static unsafe class RowProducts
{
    private const int TileA = 4, TileB = 2;

    /// <summary>target[i, j] += factor · Σ a[i, t] · b[j, t], t below <paramref name="length"/>.</summary>
    /// <param name="factor">Factor on the products.</param>
    /// <param name="a">The rows of A.</param>
    /// <param name="strideA">Elements from a row of A to the next.</param>
    /// <param name="rowsA">Rows of A.</param>
    /// <param name="b">The rows of B.</param>
    /// <param name="strideB">Elements from a row of B to the next.</param>
    /// <param name="rowsB">Rows of B.</param>
    /// <param name="length">Elements of a row that are multiplied.</param>
    /// <param name="target">[rowsA, rowsB]; must not overlap what is read.</param>
    /// <param name="strideTarget">Elements from a row of the target to the next.</param>
    public static void Add(
        float factor, float* a, long strideA, int rowsA, float* b, long strideB, int rowsB, int length, float* target, long strideTarget)
    {
        for (int i = 0; i < rowsA; i += TileA)
        {
            for (int j = 0; j < rowsB; j += TileB)
            {
                if (i + TileA <= rowsA && j + TileB <= rowsB)
                {
                    AddTile(factor, a + i * strideA, strideA, b + j * strideB, strideB, length, target + i * strideTarget + j, strideTarget);
                }
                else
                {
                    AddEdge(
                        factor, a + i * strideA, strideA, Math.Min(TileA, rowsA - i), b + j * strideB, strideB, Math.Min(TileB, rowsB - j), length,
                        target + i * strideTarget + j, strideTarget);
                }
            }
        }
    }

    private static void AddTile(float factor, float* a, long strideA, float* b, long strideB, int length, float* target, long strideTarget)
    {
        float* a1 = a + strideA, a2 = a1 + strideA, a3 = a2 + strideA, b1 = b + strideB;
        Vector<float> s00 = default, s01 = default, s10 = default, s11 = default, s20 = default, s21 = default, s30 = default, s31 = default;
        int t = 0;
        for (; t <= length - Vector<float>.Count; t += Vector<float>.Count)
        {
            Vector<float> x = Vector.Load(b + t), y = Vector.Load(b1 + t);
            Vector<float> row = Vector.Load(a + t);
            s00 = Vector.FusedMultiplyAdd(row, x, s00);
            s01 = Vector.FusedMultiplyAdd(row, y, s01);
            row = Vector.Load(a1 + t);
            s10 = Vector.FusedMultiplyAdd(row, x, s10);
            s11 = Vector.FusedMultiplyAdd(row, y, s11);
            row = Vector.Load(a2 + t);
            s20 = Vector.FusedMultiplyAdd(row, x, s20);
            s21 = Vector.FusedMultiplyAdd(row, y, s21);
            row = Vector.Load(a3 + t);
            s30 = Vector.FusedMultiplyAdd(row, x, s30);
            s31 = Vector.FusedMultiplyAdd(row, y, s31);
        }
        Put(s00, a, b, target);
        Put(s01, a, b1, target + 1);
        Put(s10, a1, b, target + strideTarget);
        Put(s11, a1, b1, target + strideTarget + 1);
        Put(s20, a2, b, target + 2 * strideTarget);
        Put(s21, a2, b1, target + 2 * strideTarget + 1);
        Put(s30, a3, b, target + 3 * strideTarget);
        Put(s31, a3, b1, target + 3 * strideTarget + 1);

        void Put(Vector<float> sum, float* left, float* right, float* place) => *place += factor * (Vector.Sum(sum) + Rest(left, right, t, length));
    }

    private static void AddEdge(
        float factor, float* a, long strideA, int rowsA, float* b, long strideB, int rowsB, int length, float* target, long strideTarget)
    {
        for (int i = 0; i < rowsA; i++)
        {
            for (int j = 0; j < rowsB; j++)
            {
                float* left = a + i * strideA, right = b + j * strideB;
                Vector<float> sum = default;
                int t = 0;
                for (; t <= length - Vector<float>.Count; t += Vector<float>.Count)
                {
                    sum = Vector.FusedMultiplyAdd(Vector.Load(left + t), Vector.Load(right + t), sum);
                }
                target[i * strideTarget + j] += factor * (Vector.Sum(sum) + Rest(left, right, t, length));
            }
        }
    }

    private static float Rest(float* a, float* b, int first, int length)
    {
        float sum = 0;
        for (int t = first; t < length; t++)
        {
            sum = MathF.FusedMultiplyAdd(a[t], b[t], sum);
        }
        return sum;
    }
}
