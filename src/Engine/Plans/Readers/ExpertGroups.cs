using System.Collections.Immutable;
using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>Which experts of a mixture are one, by their labels, and where the weights of each group are.</summary>
/// <param name="Labels">Of each expert: its group, or −1.</param>
internal sealed record ExpertGroups(ImmutableArray<int> Labels)
{
    /// <summary>The experts whose tensors are looked for: those that are stored, and the first of a group of which none is, so that it is missed.</summary>
    /// <param name="stored">The experts of which anything is stored.</param>
    public SortedSet<int> Wanted(IReadOnlySet<int> stored)
    {
        var wanted = new SortedSet<int>(stored.Where(expert => expert < Labels.Length));
        foreach (IGrouping<int, int> group in Members())
        {
            if (!group.Any(stored.Contains))
            {
                wanted.Add(group.First());
            }
        }
        return wanted;
    }

    /// <summary>One slot per group, in the order of their first experts, and the slot of each expert.</summary>
    /// <param name="experts">The experts; null for those that are not stored.</param>
    /// <param name="module">The mixture, for messages.</param>
    /// <param name="checkpoint">Where the tensors are.</param>
    /// <exception cref="EngineException">Experts of one group are stored with different weights.</exception>
    public (List<FeedForwardPlan> Slots, ImmutableArray<int> Map) Join(IReadOnlyList<FeedForwardPlan?> experts, string module, Checkpoint checkpoint)
    {
        var slots = new List<FeedForwardPlan>();
        int[] map = new int[Labels.Length];
        Array.Fill(map, -1);
        foreach (IGrouping<int, int> group in Members())
        {
            int[] stored = [.. group.Where(expert => experts[expert] is not null)];
            FeedForwardPlan slot = experts[stored[0]]!;
            foreach (int other in stored.AsSpan(1))
            {
                // A tensor that is missing is complained about with all others that are.
                if (!SharedWeights.AreSame(slot, experts[other]!, checkpoint))
                {
                    throw new EngineException(
                        $"experts {stored[0]} and {other} are group {group.Key}, but their weights differ", checkpoint.Path, module);
                }
            }
            foreach (int expert in group)
            {
                map[expert] = slots.Count;
            }
            slots.Add(slot);
        }
        return (slots, [.. map]);
    }

    private IEnumerable<IGrouping<int, int>> Members() =>
        Enumerable.Range(0, Labels.Length).Where(expert => Labels[expert] >= 0).GroupBy(expert => Labels[expert]);
}
