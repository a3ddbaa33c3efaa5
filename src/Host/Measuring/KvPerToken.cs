using Engine;
using Engine.Plans;

namespace Host.Measuring;

/// <summary>Keys and values that a token leaves behind, in bytes, on average over tokens of different depths.</summary>
/// <param name="All">Were every token to fill every slot.</param>
/// <param name="Outside">In the layers that every token runs.</param>
/// <param name="PerDepth">In the layers of each depth: the share of the tokens that reached it, times its slots.</param>
internal sealed record KvPerToken(double All, double Outside, double[] PerDepth)
{
    /// <summary>What is stored.</summary>
    public double Stored => Outside + PerDepth.Sum();

    /// <summary>The share that early exits save.</summary>
    public double Saved => 1 - Stored / All;

    /// <summary>Computes it from the shares of the tokens that went through each depth.</summary>
    public static KvPerToken Of(LanguageModel model, double[] reached)
    {
        LayerMap layers = model.Plan.Layers;
        double slot = model.KvSlotBytesPerToken, all = slot * layers.KvSlots.Length;
        if (layers.Recursion is not { Router: not null } recursion)
        {
            return new KvPerToken(all, all, []);
        }
        double[] perDepth = new double[recursion.Depths];
        double full = 0;
        for (int depth = 0; depth < perDepth.Length; depth++)
        {
            // With shared keys and values all depths have the slots of the first.
            bool writes = layers.Steps[recursion.FirstStep + depth * recursion.StepsPerDepth].WritesKv;
            bool everyToken = depth == 0 && !layers.Steps[recursion.FirstStep + recursion.StepsPerDepth].WritesKv;
            full += writes ? slot * recursion.StepsPerDepth : 0;
            perDepth[depth] = writes ? slot * recursion.StepsPerDepth * (everyToken ? 1 : reached[depth]) : 0;
        }
        return new KvPerToken(all, all - full, perDepth);
    }
}
