using Engine.Plans;

namespace Engine.Execution;

/// <summary>
/// How a router's logits become experts, slots and weights: pure functions in float32, the same for a row whatever rows surround it. Ties go to the lower index,
/// and logits that are not numbers count as the lowest there is, so that what is chosen are always different experts that were not dropped.
/// </summary>
public static class ExpertRouting
{
    /// <summary>What fits on the stack; routers with more experts, which nobody has published, allocate.</summary>
    private const int MostOnStack = 2048;

    /// <summary>The slots of one row: those of the chosen experts, best first, then those of shared experts. A slot is named once, and its weights are added.</summary>
    /// <param name="plan">Router, map and shared experts.</param>
    /// <param name="logits">Outputs of the router, [experts | gates of shared experts]; those of experts are overwritten.</param>
    /// <param name="perToken">Experts that are chosen, k; 1 … <see cref="ExpertsPlan.Kept"/>.</param>
    /// <param name="seed">For <see cref="ExpertChoice.Random"/>: <see cref="Seed"/> of the row.</param>
    /// <param name="slots">[at least k + shared experts].</param>
    /// <param name="weights">What each slot counts; as long as <paramref name="slots"/>.</param>
    /// <returns>How many slots there are.</returns>
    public static int Select(ExpertsPlan plan, Span<float> logits, int perToken, ulong seed, Span<int> slots, Span<float> weights)
    {
        Choose(plan, logits[..plan.Router.Experts], seed, slots[..perToken], weights[..perToken]);
        // Reading is never behind writing, so experts turn into slots where they are.
        int count = 0;
        for (int i = 0; i < perToken; i++)
        {
            count = Add(plan.Map[slots[i]], weights[i], slots, weights, count);
        }
        foreach (SharedExpert shared in plan.Shared)
        {
            float weight = shared.Gate is int gate ? RouterMath.Sigmoid(logits[gate]) : shared.Weight;
            count = Add(shared.Slot, weight, slots, weights, count);
        }
        return count;
    }

    /// <summary>Chooses the experts of one row.</summary>
    /// <param name="plan">Router and map.</param>
    /// <param name="logits">[<see cref="RouterPlan.Experts"/>], overwritten.</param>
    /// <param name="seed">For <see cref="ExpertChoice.Random"/>: <see cref="Seed"/> of the row.</param>
    /// <param name="experts">
    /// [k]: the experts, best first. Where the best groups have fewer than k, as when experts of them were dropped, the best of the other groups follow.
    /// </param>
    /// <param name="weights">[k]: what each counts.</param>
    /// <exception cref="ArgumentException">k is more than were kept.</exception>
    public static void Choose(ExpertsPlan plan, Span<float> logits, ulong seed, Span<int> experts, Span<float> weights)
    {
        RouterPlan router = plan.Router;
        ReadOnlySpan<int> map = plan.Map.AsSpan();
        MakeFinite(logits, router.RoundsLogits);
        if (router.Choice == ExpertChoice.SparseMixer)
        {
            MixSparsely(logits, map, router.SparseMixerEpsilon, experts, weights);
        }
        else
        {
            Scores scores = Scores.Over(router.Score, logits, map);
            Span<float> keys = router.Experts <= MostOnStack ? stackalloc float[router.Experts] : new float[router.Experts];
            if (router.Choice == ExpertChoice.Random)
            {
                // Those with the largest of random numbers are a uniform choice without repetition.
                for (int i = 0; i < keys.Length; i++)
                {
                    keys[i] = Mix(seed + (ulong)i) >> 40;
                }
                TakeLargest(1, 1, GroupScore.Largest, keys, map, experts, weights);
            }
            else
            {
                MakeKeys(router, scores, logits, keys);
                TakeLargest(router.Groups, router.GroupsUsed, router.GroupScore, keys, map, experts, weights);
            }
            Weigh(router.Weight, scores, logits, experts, weights);
        }
        Finish(router, weights);
    }

    /// <summary>
    /// What the choices of <see cref="ExpertChoice.Random"/> are drawn from: the router's own seed, the position and the token. Not the sequence: a sequence's
    /// number depends on what was served before it, and sequences share the keys and values of equal prefixes.
    /// </summary>
    public static ulong Seed(RouterPlan router, Row row) => Mix(router.Seed + Mix((ulong)(uint)row.Position << 32 | (uint)row.Token));

    /// <summary>Notes a slot, or adds the weight where it is noted already.</summary>
    private static int Add(int slot, float weight, Span<int> slots, Span<float> weights, int count)
    {
        int at = slots[..count].IndexOf(slot);
        if (at >= 0)
        {
            weights[at] += weight;
            return count;
        }
        (slots[count], weights[count]) = (slot, weight);
        return count + 1;
    }

    /// <summary>Infinities become the outermost numbers, what is no number the lowest: differences and sums of exponentials are numbers then.</summary>
    private static void MakeFinite(Span<float> logits, bool round)
    {
        foreach (ref float z in logits)
        {
            z = float.IsNaN(z) ? float.MinValue : Math.Clamp(round ? RoundToBFloat16(z) : z, float.MinValue, float.MaxValue);
        }
    }

    /// <summary>The nearest number with 8 significant bits, of two the even one.</summary>
    private static float RoundToBFloat16(float value)
    {
        uint bits = BitConverter.SingleToUInt32Bits(value);
        return BitConverter.UInt32BitsToSingle(bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF_0000);
    }

    /// <summary>
    /// SparseMixer-2 at inference (Liu et al. 2023; PhiMoE's code): an expert is the largest logit m of those not yet chosen, and its weight its part of the
    /// softmax over those of them with (m − z) / max(|z|, m) ≤ 2ε. 0 / 0 does not exceed 2ε. Other k than 2 go on likewise.
    /// </summary>
    private static void MixSparsely(ReadOnlySpan<float> logits, ReadOnlySpan<int> map, float epsilon, Span<int> experts, Span<float> weights)
    {
        for (int n = 0; n < experts.Length; n++)
        {
            ReadOnlySpan<int> chosen = experts[..n];
            int best = -1;
            for (int i = 0; i < logits.Length; i++)
            {
                if (map[i] >= 0 && !chosen.Contains(i) && (best < 0 || logits[i] > logits[best]))
                {
                    best = i;
                }
            }
            if (best < 0)
            {
                throw TooFew(experts);
            }
            float largest = logits[best];
            double sum = 0;
            for (int i = 0; i < logits.Length; i++)
            {
                bool isFar = (largest - logits[i]) / Math.Max(Math.Abs(logits[i]), largest) > 2 * epsilon;
                if (map[i] >= 0 && !chosen.Contains(i) && !isFar)
                {
                    sum += Math.Exp(logits[i] - largest);
                }
            }
            (experts[n], weights[n]) = (best, (float)(1 / sum));
        }
    }

    /// <summary>
    /// What experts are compared by: score + bias. Scores grow with logits, so where nothing is added to them logits are compared, which no rounding of an
    /// exponential makes equal.
    /// </summary>
    private static void MakeKeys(RouterPlan router, Scores scores, ReadOnlySpan<float> logits, Span<float> keys)
    {
        ReadOnlySpan<float> bias = router.SelectionBias.AsSpan();
        if (bias.IsEmpty && (router.Groups == 1 || router.GroupScore == GroupScore.Largest))
        {
            logits.CopyTo(keys);
            return;
        }
        for (int i = 0; i < keys.Length; i++)
        {
            keys[i] = scores.Of(logits[i]) + (bias.IsEmpty ? 0 : bias[i]);
        }
    }

    /// <summary>The experts with the largest keys, best first; those of the best groups before all others.</summary>
    /// <param name="groups">Groups of neighbours that the experts are in.</param>
    /// <param name="groupsUsed">How many of them are the best.</param>
    /// <param name="groupScore">What makes them so.</param>
    /// <param name="keys">[experts].</param>
    /// <param name="map">[experts]: negative for those that were dropped.</param>
    /// <param name="experts">[k].</param>
    /// <param name="found">[k]: their keys.</param>
    private static void TakeLargest(
        int groups, int groupsUsed, GroupScore groupScore, ReadOnlySpan<float> keys, ReadOnlySpan<int> map, Span<int> experts, Span<float> found)
    {
        int size = keys.Length / groups;
        Span<float> groupKeys = groups <= MostOnStack ? stackalloc float[groups] : new float[groups];
        for (int group = 0; group < groups; group++)
        {
            groupKeys[group] = GroupKey(groupScore, keys.Slice(group * size, size), map.Slice(group * size, size));
        }
        var largest = new Largest(experts, found);
        foreach (bool used in (ReadOnlySpan<bool>)[true, false])
        {
            for (int group = 0; group < groups; group++)
            {
                if (IsAmongLargest(groupKeys, group, groupsUsed) == used)
                {
                    for (int i = group * size; i < (group + 1) * size; i++)
                    {
                        if (map[i] >= 0)
                        {
                            largest.Offer(i, keys[i]);
                        }
                    }
                }
            }
            largest.Settle();
        }
        if (!largest.IsFull)
        {
            throw TooFew(experts);
        }
    }

    /// <summary>The score of a group: of those of its experts that were not dropped; −∞ where there are none.</summary>
    private static float GroupKey(GroupScore score, ReadOnlySpan<float> keys, ReadOnlySpan<int> map)
    {
        float first = float.NegativeInfinity, second = float.NegativeInfinity;
        for (int i = 0; i < keys.Length; i++)
        {
            if (map[i] >= 0)
            {
                second = Math.Max(second, Math.Min(first, keys[i]));
                first = Math.Max(first, keys[i]);
            }
        }
        return score == GroupScore.SumOfTwoLargest && second > float.NegativeInfinity ? first + second : first;
    }

    /// <summary>Whether fewer than <paramref name="count"/> values are better; of equal ones the earlier is.</summary>
    private static bool IsAmongLargest(ReadOnlySpan<float> values, int index, int count)
    {
        int better = 0;
        for (int i = 0; i < values.Length; i++)
        {
            better += values[i] > values[index] || (values[i] == values[index] && i < index) ? 1 : 0;
        }
        return better < count;
    }

    /// <summary>What the chosen experts weigh, before normalisation.</summary>
    private static void Weigh(ExpertWeight weight, Scores scores, ReadOnlySpan<float> logits, ReadOnlySpan<int> experts, Span<float> weights)
    {
        for (int i = 0; i < experts.Length; i++)
        {
            weights[i] = logits[experts[i]];
        }
        RouterSoftmax ofChosen = weight == ExpertWeight.SoftmaxOfChosen ? RouterSoftmax.Over(weights) : default;
        foreach (ref float z in weights)
        {
            z = weight switch
            {
                ExpertWeight.Score => scores.Of(z),
                ExpertWeight.SoftmaxOfChosen => ofChosen.Of(z),
                ExpertWeight.One => 1,
                _ => throw new EngineException($"unknown weight {weight} of experts"),
            };
        }
    }

    /// <summary>Normalisation and scale. Weights whose sum is 0 stay as they are.</summary>
    private static void Finish(RouterPlan router, Span<float> weights)
    {
        float sum = 0;
        foreach (float weight in weights)
        {
            sum += weight;
        }
        float divisor = router.Normalize && sum != 0 ? sum + router.NormalizationEpsilon : 1;
        foreach (ref float weight in weights)
        {
            weight = weight / divisor * router.Scale;
        }
    }

    private static ArgumentException TooFew(ReadOnlySpan<int> experts) =>
        new($"{experts.Length} experts were asked for; fewer were kept", nameof(experts));

    /// <summary>ln(1 + exp(z)). Where exp(−|z|) = e is small, ln(1 + e) is e: the sum would lose it.</summary>
    private static double Softplus(double z)
    {
        double e = Math.Exp(-Math.Abs(z));
        return Math.Max(z, 0) + (e < 1e-8 ? e : Math.Log(1 + e));
    }

    /// <summary>The finalizer of SplitMix64 (Steele et al. 2014) one step on.</summary>
    private static ulong Mix(ulong x)
    {
        x += 0x9E3779B97F4A7C15UL;
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9UL;
        x = (x ^ x >> 27) * 0x94D049BB133111EBUL;
        return x ^ x >> 31;
    }

    /// <summary>From logits to scores. Softmax is over the experts that were not dropped.</summary>
    private readonly record struct Scores(ExpertScore Kind, RouterSoftmax Softmax)
    {
        public static Scores Over(ExpertScore kind, ReadOnlySpan<float> logits, ReadOnlySpan<int> map) =>
            new(kind, kind == ExpertScore.Softmax ? RouterSoftmax.Over(logits, map) : default);

        public float Of(float z) => Kind switch
        {
            ExpertScore.Logit => z,
            ExpertScore.Softmax => Softmax.Of(z),
            ExpertScore.Sigmoid => RouterMath.Sigmoid(z),
            ExpertScore.SqrtSoftplus => (float)Math.Sqrt(Softplus(z)),
            _ => throw new EngineException($"unknown score {Kind} of experts"),
        };
    }

    /// <summary>The largest keys that were offered and whose they are, best first; of equal ones the one that was offered first.</summary>
    private ref struct Largest(Span<int> indices, Span<float> keys)
    {
        private readonly Span<int> indices = indices;
        private readonly Span<float> keys = keys;
        private int settled, count;

        public readonly bool IsFull => count == keys.Length;

        public void Offer(int index, float key)
        {
            if (!IsFull)
            {
                count++;
            }
            else if (settled == count || !(key > keys[count - 1]))
            {
                return;
            }
            int at = count - 1;
            for (; at > settled && key > keys[at - 1]; at--)
            {
                (indices[at], keys[at]) = (indices[at - 1], keys[at - 1]);
            }
            (indices[at], keys[at]) = (index, key);
        }

        /// <summary>Those that are there stay before all that are offered from here on.</summary>
        public void Settle() => settled = count;
    }
}
