using System.Numerics.Tensors;
using System.Runtime.InteropServices;

namespace Tools.Trainer;

/// <summary>AdamW (Loshchilov and Hutter, 2019) over the flat parameter buffer, with the gradient clipped to a norm of 1.</summary>
public sealed unsafe class AdamW(LlamaParameters parameters) : IDisposable
{
    private const float Beta1 = 0.9f;
    private const float Beta2 = 0.98f;
    private const float Epsilon = 1e-8f;
    private const float WeightDecay = 0.05f;

    private readonly float* firstMoments = LlamaParameters.Allocate(parameters.Length);
    private readonly float* secondMoments = LlamaParameters.Allocate(parameters.Length);

    /// <summary>Running mean of the gradient.</summary>
    public Span<float> FirstMoments => new(firstMoments, parameters.Length);

    /// <summary>Running mean of its square.</summary>
    public Span<float> SecondMoments => new(secondMoments, parameters.Length);

    /// <summary>Takes one step down the gradient and clears it.</summary>
    /// <param name="step">From 1, for the bias correction.</param>
    /// <param name="learningRate">Step size.</param>
    /// <returns>The norm of the gradient before clipping.</returns>
    public float Step(int step, float learningRate)
    {
        var gradients = new Span<float>(parameters.Gradients, parameters.Length);
        float norm = TensorPrimitives.Norm<float>(gradients);
        float scale = norm > 1 ? 1 / norm : 1;
        float correction1 = 1 - MathF.Pow(Beta1, step), correction2 = 1 - MathF.Pow(Beta2, step);
        foreach (Parameter parameter in parameters.All)
        {
            float decay = parameter.Decays ? 1 - learningRate * WeightDecay : 1;
            for (int i = parameter.Offset; i < parameter.Offset + parameter.Length; i++)
            {
                float gradient = parameters.Gradients[i] * scale;
                float first = firstMoments[i] = Beta1 * firstMoments[i] + (1 - Beta1) * gradient;
                float second = secondMoments[i] = Beta2 * secondMoments[i] + (1 - Beta2) * gradient * gradient;
                float update = first / correction1 / (MathF.Sqrt(second / correction2) + Epsilon);
                parameters.Weights[i] = parameters.Weights[i] * decay - learningRate * update;
            }
        }

        gradients.Clear();
        return norm;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        NativeMemory.AlignedFree(firstMoments);
        NativeMemory.AlignedFree(secondMoments);
    }
}
