namespace Engine.Execution;

/// <summary>Watches the routers of mixtures of experts: called within each step, once for every mixture that runs.</summary>
public interface IExpertObserver
{
    /// <summary>Takes the choices of all rows of a step in one layer; the spans are only valid during the call.</summary>
    /// <param name="layer">Index into <see cref="Plans.LayerMap.Steps"/>.</param>
    /// <param name="most">Places of a row.</param>
    /// <param name="slots">
    /// [rows, most] indices into <see cref="Plans.ExpertsPlan.Slots"/>: those of the chosen experts, then those of shared ones; −1 past a row's last.
    /// </param>
    /// <param name="weights">[rows, most]: what each counts.</param>
    void Chosen(int layer, int most, ReadOnlySpan<int> slots, ReadOnlySpan<float> weights);
}
