using System.Runtime.Intrinsics;

namespace Tools.Trainer;

/// <summary>Short vector loops; lengths are multiples of 16.</summary>
internal static unsafe class Vectors
{
    /// <summary>Σ aᵢ·bᵢ.</summary>
    internal static float Dot(float* a, float* b, int length)
    {
        Vector512<float> sum = default;
        for (int i = 0; i < length; i += 16)
            sum = Vector512.FusedMultiplyAdd(Vector512.Load(a + i), Vector512.Load(b + i), sum);
        return Vector512.Sum(sum);
    }

    /// <summary>target += scale·source.</summary>
    internal static void AddScaled(float* target, float* source, float scale, int length)
    {
        Vector512<float> factor = Vector512.Create(scale);
        for (int i = 0; i < length; i += 16)
            Vector512.FusedMultiplyAdd(Vector512.Load(source + i), factor, Vector512.Load(target + i)).Store(target + i);
    }

    /// <summary>output = x·gain/rms(x) row by row; the reciprocals of the root mean squares are kept for the backward pass.</summary>
    internal static void RmsNorm(float* x, float* gain, float* output, float* inverseRms, int rows, int width)
    {
        for (int row = 0; row < rows; row++, x += width, output += width)
        {
            float inverse = inverseRms[row] = 1 / MathF.Sqrt(Dot(x, x, width) / width + LlamaShape.NormEpsilon);
            Vector512<float> factor = Vector512.Create(inverse);
            for (int i = 0; i < width; i += 16)
                (Vector512.Load(x + i) * factor * Vector512.Load(gain + i)).Store(output + i);
        }
    }

    /// <summary>Adds the gradient of <see cref="RmsNorm"/> to those of its input and gain.</summary>
    internal static void RmsNormBackward(
        float* x, float* gain, float* inverseRms, float* outputGradient, float* inputGradient, float* gainGradient, int rows, int width)
    {
        for (int row = 0; row < rows; row++, x += width, outputGradient += width, inputGradient += width)
        {
            Vector512<float> factor = Vector512.Create(inverseRms[row]);
            Vector512<float> projection = default;
            for (int i = 0; i < width; i += 16)
            {
                Vector512<float> normed = Vector512.Load(x + i) * factor, upstream = Vector512.Load(outputGradient + i);
                (Vector512.Load(gainGradient + i) + upstream * normed).Store(gainGradient + i);
                projection += upstream * Vector512.Load(gain + i) * normed;
            }

            Vector512<float> mean = Vector512.Create(Vector512.Sum(projection) / width);
            for (int i = 0; i < width; i += 16)
            {
                Vector512<float> normed = Vector512.Load(x + i) * factor;
                Vector512<float> gradient = factor * (Vector512.Load(outputGradient + i) * Vector512.Load(gain + i) - normed * mean);
                (Vector512.Load(inputGradient + i) + gradient).Store(inputGradient + i);
            }
        }
    }

    /// <summary>hidden = silu(gate)·up; a row of <paramref name="gateUp"/> holds the gates and then the ups.</summary>
    internal static void SwiGlu(float* gateUp, float* hidden, int rows, int width)
    {
        for (int row = 0; row < rows; row++, gateUp += 2 * width, hidden += width)
        {
            for (int i = 0; i < width; i += 16)
            {
                Vector512<float> gate = Vector512.Load(gateUp + i);
                (gate * Sigmoid(gate) * Vector512.Load(gateUp + width + i)).Store(hidden + i);
            }
        }
    }

    /// <summary>Replaces gates and ups by their gradients.</summary>
    internal static void SwiGluBackward(float* gateUp, float* hiddenGradient, int rows, int width)
    {
        for (int row = 0; row < rows; row++, gateUp += 2 * width, hiddenGradient += width)
        {
            for (int i = 0; i < width; i += 16)
            {
                Vector512<float> gate = Vector512.Load(gateUp + i), up = Vector512.Load(gateUp + width + i);
                Vector512<float> upstream = Vector512.Load(hiddenGradient + i);
                Vector512<float> sigmoid = Sigmoid(gate), silu = gate * sigmoid;
                (upstream * up * (sigmoid + silu * (Vector512<float>.One - sigmoid))).Store(gateUp + i);
                (upstream * silu).Store(gateUp + width + i);
            }
        }
    }

    private static Vector512<float> Sigmoid(Vector512<float> x) => Vector512<float>.One / (Vector512<float>.One + Vector512.Exp(-x));
}
