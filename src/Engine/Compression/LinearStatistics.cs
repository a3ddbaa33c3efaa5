using Engine.Execution;
using Engine.Plans;
using Engine.Transforms.Calibration;

namespace Engine.Compression;

/// <summary>
/// Gathers the second moments of what goes into linear maps. Rows are kept while a step runs and added afterwards, when the threads of the backend rest.
/// </summary>
internal sealed class LinearStatistics : ILinearObserver
{
    private readonly Dictionary<WeightRef, (SecondMoment Moment, List<float> Pending)> moments = [];

    /// <param name="inputs">What is watched.</param>
    /// <param name="full">Whole matrices of moments; otherwise norms.</param>
    public LinearStatistics(IEnumerable<TargetInput> inputs, bool full)
    {
        foreach (TargetInput input in inputs)
        {
            moments.Add(input.Key, (new SecondMoment(input.Inputs, full), []));
        }
    }

    /// <inheritdoc/>
    public bool Wants(LinearPlan linear) => linear.Parts is [{ Weight: { } weight }, ..] && moments.ContainsKey(weight);

    /// <inheritdoc/>
    public void Take(LinearPlan linear, int count, ReadOnlySpan<float> rows) => moments[linear.Parts[0].Weight!].Pending.AddRange(rows);

    /// <summary>Adds the rows of the steps that have run since the last time.</summary>
    /// <exception cref="EngineException">An activation is not finite.</exception>
    public void Flush()
    {
        foreach ((SecondMoment moment, List<float> pending) in moments.Values)
        {
            moment.Add(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(pending), pending.Count / moment.Inputs);
            pending.Clear();
        }
    }

    /// <summary>The moments of an input, which are forgotten here.</summary>
    /// <exception cref="EngineException">No row came, though every row should have.</exception>
    public SecondMoment Take(TargetInput input)
    {
        moments.Remove(input.Key, out (SecondMoment Moment, List<float> Pending) gathered);
        return gathered.Moment.Rows > 0 || input.IsExpert
            ? gathered.Moment
            : throw new EngineException("nothing of the calibration text came to this matrix", item: input.Key.Tensor);
    }
}
