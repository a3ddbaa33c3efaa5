namespace Engine.Execution;

/// <summary>Sees what layers do to the residual stream: how much each changes it tells which can be done without.</summary>
public interface ILayerObserver
{
    /// <summary>Takes the selected rows before and after a layer; the spans are only valid during the call.</summary>
    /// <param name="layer">Index into <see cref="Plans.LayerMap.Steps"/>.</param>
    /// <param name="before">[rows, hiddenSize].</param>
    /// <param name="after">[rows, hiddenSize].</param>
    void Ran(int layer, ReadOnlySpan<float> before, ReadOnlySpan<float> after);
}
