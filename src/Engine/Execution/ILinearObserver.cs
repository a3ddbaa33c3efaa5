using Engine.Plans;

namespace Engine.Execution;

/// <summary>
/// Sees what goes into linear maps while the forward pass runs: for second moments of activations, which calibrated pruning and quantization work from.
/// Linear maps of layers are shown, those inside experts included; embedding, head and the matrices of single heads are not.
/// </summary>
public interface ILinearObserver
{
    /// <summary>Whether the inputs of a linear map are wanted. Asked every time it runs; rows that nobody wants are not copied.</summary>
    bool Wants(LinearPlan linear);

    /// <summary>Takes the rows that a step multiplies with a linear map: of an expert, those that were sent to it.</summary>
    /// <param name="linear">The linear map.</param>
    /// <param name="count">Rows, at least one.</param>
    /// <param name="rows">[count, <see cref="LinearPlan.Inputs"/>]; only valid during the call.</param>
    void Take(LinearPlan linear, int count, ReadOnlySpan<float> rows);
}
