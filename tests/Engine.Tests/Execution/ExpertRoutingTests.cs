using System.Collections.Immutable;
using Engine.Execution;
using Engine.Plans;
using Engine.Tests.Cpu;
using Xunit;

namespace Engine.Tests.Execution;

/// <summary>Every published router against its own code's arithmetic in double precision, and what no paper says: ties, dropped experts, numbers that are none.</summary>
public sealed class ExpertRoutingTests
{
    private const int Experts = 16, PerToken = 4;

    /// <summary>What one family computes, by name.</summary>
    private static readonly (string Name, RouterPlan Router, Func<RouterOracle, double[], RouterPlan, (int[], double[])> Oracle)[] Families =
    [
        ("Mixtral", Router() with { Normalize = true }, static (o, z, r) => o.Softmax(z, r.PerToken, norm: true)),
        ("Qwen3 with norm_topk_prob", Router() with { Normalize = true }, static (o, z, r) => o.Softmax(z, r.PerToken, norm: true)),
        ("OLMoE, Qwen2 without norm_topk_prob", Router(), static (o, z, r) => o.Softmax(z, r.PerToken, norm: false)),
        ("DeepSeek-V1", Router(), static (o, z, r) => o.Softmax(z, r.PerToken, norm: false)),
        ("DeepSeek-V1 with norm_topk_prob", Router() with { Normalize = true, NormalizationEpsilon = 1e-20f },
            static (o, z, r) => o.Softmax(z, r.PerToken, norm: true)),
        ("DeepSeek-V2 greedy", Router() with { Scale = 16 }, static (o, z, r) => o.DeepSeekV2(z, r.PerToken, 1, 1, norm: false, 16)),
        ("DeepSeek-V2 group_limited_greedy", Router() with { Scale = 16, Groups = 4, GroupsUsed = 2 },
            static (o, z, r) => o.DeepSeekV2(z, r.PerToken, 4, 2, norm: false, 16)),
        ("DeepSeek-V2 group_limited_greedy with norm_topk_prob",
            Router() with { Normalize = true, NormalizationEpsilon = 1e-20f, Groups = 8, GroupsUsed = 3 },
            static (o, z, r) => o.DeepSeekV2(z, r.PerToken, 8, 3, norm: true, 16)),
        ("DeepSeek-V3", DeepSeekV3(), static (o, z, r) => o.DeepSeekV3(z, r.SelectionBias, r.PerToken, 4, 2, norm: true, 2.5)),
        ("DeepSeek-V3 without norm_topk_prob", DeepSeekV3() with { Normalize = false },
            static (o, z, r) => o.DeepSeekV3(z, r.SelectionBias, r.PerToken, 4, 2, norm: false, 2.5)),
        ("DeepSeek-V3 without groups", DeepSeekV3() with { Groups = 1, GroupsUsed = 1 },
            static (o, z, r) => o.DeepSeekV3(z, r.SelectionBias, r.PerToken, 1, 1, norm: true, 2.5)),
        ("PhiMoE", Router() with { PerToken = 2, Choice = ExpertChoice.SparseMixer, SparseMixerEpsilon = 0.01f },
            static (o, z, r) => o.SparseMixer(z, 0.01)),
        ("PhiMoE, with an epsilon that most are within", Router() with { PerToken = 2, Choice = ExpertChoice.SparseMixer, SparseMixerEpsilon = 0.4f },
            static (o, z, r) => o.SparseMixer(z, 0.4f)),
        ("gpt-oss", Router() with { Score = ExpertScore.Logit, Weight = ExpertWeight.SoftmaxOfChosen },
            static (o, z, r) => o.SoftmaxOfChosen(z, r.PerToken)),
        ("Megatron", Router() with { Weight = ExpertWeight.SoftmaxOfChosen }, static (o, z, r) => o.SoftmaxOfChosen(z, r.PerToken)),
        ("Megatron with pre_softmax", Router(), static (o, z, r) => o.Softmax(z, r.PerToken, norm: false)),
        ("SMoE-Dropout with another k", Router() with { PerToken = 9, Weight = ExpertWeight.SoftmaxOfChosen },
            static (o, z, r) => o.SoftmaxOfChosen(z, r.PerToken)),
        ("sqrt-softplus", Router() with { Score = ExpertScore.SqrtSoftplus, Normalize = true }, static (o, z, r) => o.SqrtSoftplus(z, r.PerToken)),
        ("DiT-MoE", Router(), static (o, z, r) => o.Softmax(z, r.PerToken, norm: false)),
        ("RMoE beside a shared expert", Router() with { Normalize = true, Scale = 0.7f },
            static (o, z, r) => o.Scaled(o.Softmax(z, r.PerToken, norm: true), 0.7f)),
        ("weights of one", Router() with { Weight = ExpertWeight.One, Scale = 0.5f },
            static (o, z, r) => (o.Top(z, r.PerToken), [.. Enumerable.Repeat(0.5, r.PerToken)])),
    ];

    public static TheoryData<string> Names => [.. Families.Select(static family => family.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Routers_compute_what_their_family_does(string family)
    {
        (_, RouterPlan router, var oracle) = Families.Single(row => row.Name == family);
        Random random = Seed.Fresh();
        int compared = 0;
        for (int round = 0; round < 200; round++)
        {
            float[] z = TestRows.Normal(random, Experts, scale: round % 2 == 0 ? 1 : 10);
            var decisions = new RouterOracle();
            (int[] experts, double[] weights) = oracle(decisions, [.. z], router);
            if (decisions.Margin < 1e-5)
            {
                continue; // float32 may see it the other way round
            }
            Check(experts, weights, Choose(Plan(router), z, router.PerToken));
            compared++;
        }
        Assert.True(compared >= 80, $"only {compared} rows were compared");
    }

    [Fact]
    public void Softmax_of_the_chosen_is_the_normalised_softmax_of_all()
    {
        float[] z = TestRows.Normal(Seed.Fresh(), Experts, scale: 3);
        var (experts, weights) = Choose(Plan(Router() with { Normalize = true }), z, PerToken);
        Check(experts, [.. weights], Choose(Plan(Router() with { Weight = ExpertWeight.SoftmaxOfChosen }), z, PerToken));
    }

    [Fact]
    public void Experts_of_groups_that_are_not_used_lose_against_negative_scores()
    {
        // Biased scores −0.1, −0.2 | −0.3, −0.4. Filling the second group with 0, as a port does, would choose from it.
        RouterPlan router = DeepSeekV3() with
        {
            Experts = 4,
            Groups = 2,
            GroupsUsed = 1,
            SelectionBias = [-0.6f, -0.7f, -0.8f, -0.9f],
            Scale = 1,
        };
        Check([0, 1], [0.5, 0.5], Choose(Plan(router), [0, 0, 0, 0], 2));
    }

    [Fact]
    public void Groups_are_scored_by_their_best_or_by_the_sum_of_two()
    {
        RouterPlan router = Router() with { Experts = 6, PerToken = 1, Groups = 2, GroupsUsed = 1, Score = ExpertScore.Sigmoid };
        float[] z = [1, -9, -9, 0.9f, 0.8f, -9];
        Assert.Equal([0], Choose(Plan(router), z, 1).Experts);
        Assert.Equal([3], Choose(Plan(router with { GroupScore = GroupScore.SumOfTwoLargest }), z, 1).Experts);
    }

    [Fact]
    public void Biases_choose_and_do_not_weigh()
    {
        RouterPlan router = Router() with { Experts = 3, PerToken = 1, Score = ExpertScore.Sigmoid, SelectionBias = [0, 0, 5] };
        Check([2], [0.5], Choose(Plan(router), [3, 2, 0], 1));
    }

    [Fact]
    public void Sparse_mixer_shares_the_softmax_among_near_logits()
    {
        // Of three within 2 % the best weighs a third; the second shares with one only, and so weighs more.
        RouterPlan router = PhiMoE(4);
        (int[] experts, float[] weights) = Choose(Plan(router), [1, 1.01f, 1.005f, 0], 2);
        double third = 1 / (1 + Math.Exp(-0.005) + Math.Exp(-0.01)), half = 1 / (1 + Math.Exp(-0.005));
        Check([1, 2], [third, half], (experts, weights));
        Assert.True(weights[1] > weights[0]);

        // Usually both weigh 1: nothing is near.
        Check([1, 3], [1, 1], Choose(Plan(router), [1, 4, -2, 3], 2));

        // 0 / 0 is not far.
        Check([0, 1], [0.5, 1], Choose(Plan(PhiMoE(3)), [0, 0, -1], 2));

        // Negative logits are compared by their own size.
        Check([0, 1], [1 / (1 + Math.Exp(-0.01)), 1], Choose(Plan(PhiMoE(3)), [-1, -1.01f, -2], 2));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Of_equal_logits_the_lowest_indices_are_chosen(string family)
    {
        RouterPlan router = Families.Single(row => row.Name == family).Router;
        router = router with { SelectionBias = router.SelectionBias.IsEmpty ? [] : [.. Enumerable.Repeat(-1f, Experts)] };
        Assert.Equal(Enumerable.Range(0, router.PerToken), Choose(Plan(router), new float[Experts], router.PerToken).Experts);

        // At the boundary: one is larger, the others tie.
        var z = new float[Experts];
        z[2] = 1;
        Assert.Equal([2, 0], Choose(Plan(router), z, 2).Experts);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void All_experts_may_be_chosen(string family)
    {
        RouterPlan router = Families.Single(row => row.Name == family).Router;
        float[] z = TestRows.Normal(Seed.Fresh(), Experts);
        (int[] experts, float[] weights) = Choose(Plan(router), z, Experts);
        Assert.Equal(Enumerable.Range(0, Experts), experts.Order());
        Assert.All(weights, static weight => Assert.True(float.IsFinite(weight)));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Whatever_the_logits_different_experts_are_chosen_that_were_kept(string family)
    {
        RouterPlan router = Families.Single(row => row.Name == family).Router;
        Random random = Seed.Fresh();
        float[] odd = [float.NaN, float.NegativeInfinity, float.PositiveInfinity, float.MaxValue, float.MinValue, 0, -0f, 1, -200];
        float[][] rows =
        [
            .. odd.Select(static value => Enumerable.Repeat(value, Experts).ToArray()),
            .. Enumerable.Range(0, 300).Select(_ => Enumerable.Range(0, Experts).Select(_ => odd[random.Next(odd.Length)]).ToArray()),
        ];
        foreach (float[] z in rows)
        {
            int[] map = [.. Enumerable.Range(0, Experts).Select(_ => random.Next(3) - 1)];
            map[random.Next(Experts)] = 0;
            int kept = map.Count(static slot => slot >= 0);
            for (int k = 1; k <= kept; k++)
            {
                (int[] experts, float[] weights) = Choose(Plan(router, map), z, k);
                Assert.Equal(k, experts.Distinct().Count());
                Assert.All(experts, expert => Assert.True(map[expert] >= 0));
                Assert.All(weights, static weight => Assert.True(float.IsFinite(weight)));
            }
            Assert.Throws<ArgumentException>(() => Choose(Plan(router, map), z, kept + 1));
        }
    }

    [Fact]
    public void Logits_that_are_no_numbers_are_chosen_last()
    {
        RouterPlan router = Router() with { Experts = 4 };
        float[] z = [float.NaN, -50, float.NegativeInfinity, 3];
        Assert.Equal([3, 1, 0, 2], Choose(Plan(router), z, 4).Experts);
        Check([3, 1], [1, Math.Exp(-53)], Choose(Plan(router), z, 2));
        Check([0, 1], [0.25, 0.25], Choose(Plan(router), [float.NaN, float.NaN, float.NaN, float.NaN], 2));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Dropping_experts_is_routing_among_the_others(string family)
    {
        RouterPlan router = Families.Single(row => row.Name == family).Router with { Groups = 1, GroupsUsed = 1 };
        Random random = Seed.Fresh();
        int[] map = [.. Enumerable.Range(0, Experts).Select(static i => i % 3 == 1 ? -1 : i)], kept = [.. map.Where(static slot => slot >= 0)];
        RouterPlan smaller = router with
        {
            Experts = kept.Length,
            SelectionBias = router.SelectionBias.IsEmpty ? [] : [.. kept.Select(i => router.SelectionBias[i])],
        };
        float[] z = TestRows.Normal(random, Experts, scale: 2), fewer = [.. kept.Select(i => z[i])];
        (int[] expected, float[] weights) = Choose(Plan(smaller), fewer, router.PerToken);
        for (int i = 0; i < Experts; i++)
        {
            z[i] = map[i] < 0 ? 100 : z[i];
        }
        Check([.. expected.Select(i => kept[i])], [.. weights], Choose(Plan(router, map), z, router.PerToken));
    }

    [Fact]
    public void A_dropped_expert_is_not_chosen_where_the_scores_of_others_vanish()
    {
        RouterPlan router = Router() with { Experts = 3, SelectionBias = [9, 0, 0], Normalize = true };
        Check([1, 2], [1, 0], Choose(Plan(router, [-1, 0, 1]), [500, 400, 0], 2));
    }

    [Fact]
    public void Groups_with_too_few_experts_are_followed_by_the_best_of_the_others()
    {
        RouterPlan router = Router() with { Experts = 6, Groups = 3, GroupsUsed = 1 };
        Assert.Equal([4, 5, 1, 3], Choose(Plan(router), [-9, 3, -8, 2, 5, -7], 4).Experts);
        // A group that lost an expert, and one that lost both.
        Assert.Equal([4, 3, 2], Choose(Plan(router, [-1, -1, 0, 0, 0, -1]), [9, 9, -8, 2, 5, 9], 3).Experts);
    }

    [Fact]
    public void Logits_are_rounded_to_the_nearest_bfloat16_and_ties_to_even()
    {
        RouterPlan router = Router() with { Experts = 6, Score = ExpertScore.Logit, RoundsLogits = true };
        float step = 1 / 128f;
        float[] z = [1 + step / 2, 1 + 3 * step / 2, 1 + 0.51f * step, -1 - step / 2, 1.001f, -1 - 3 * step / 2];
        (int[] experts, float[] weights) = Choose(Plan(router), z, 6);
        Assert.Equal([1, 2, 0, 4, 3, 5], experts);
        Assert.Equal([1 + 2 * step, 1 + step, 1, 1, -1, -1 - 2 * step], weights);
    }

    [Fact]
    public void Random_choices_are_uniform_and_repeat_with_their_seed()
    {
        RouterPlan router = Router() with { Choice = ExpertChoice.Random, Weight = ExpertWeight.One, Scale = 0.5f, Seed = 7 };
        ExpertsPlan plan = Plan(router, [.. Enumerable.Range(0, Experts).Select(static i => i == 5 ? -1 : i)]);
        var pairs = new Dictionary<(int, int), int>();
        const int Draws = 21_000;
        for (int position = 0; position < Draws; position++)
        {
            ulong seed = ExpertRouting.Seed(router, new Row(0, position, 3));
            (int[] experts, float[] weights) = Choose(plan, new float[Experts], 2, seed);
            Assert.Equal(experts, Choose(plan, new float[Experts], 2, seed).Experts);
            Assert.Equal([0.5f, 0.5f], weights);
            var pair = (experts[0], experts[1]);
            pairs[pair] = pairs.GetValueOrDefault(pair) + 1;
        }
        // Each ordered pair of the 15 kept is drawn 100 ± 10 times; the numbers do not change between runs.
        Assert.Equal(15 * 14, pairs.Count);
        Assert.All(pairs, static pair => Assert.InRange(pair.Value, 50, 150));
        Assert.DoesNotContain(pairs, static pair => pair.Key.Item1 == 5 || pair.Key.Item2 == 5);

        Row row = new(0, 11, 3);
        ulong one = ExpertRouting.Seed(router, row);
        Assert.Equal(one, ExpertRouting.Seed(router, row with { Track = 9 }));
        Assert.NotEqual(one, ExpertRouting.Seed(router with { Seed = 8 }, row));
        Assert.NotEqual(one, ExpertRouting.Seed(router, row with { Position = 12 }));
        Assert.NotEqual(one, ExpertRouting.Seed(router, row with { Token = 4 }));
    }

    [Fact]
    public void Experts_that_share_a_slot_are_one_with_the_sum_of_their_weights()
    {
        ExpertsPlan plan = Plan(Router() with { Experts = 5, Score = ExpertScore.Logit }, [0, 1, 0, 2, 1]);
        Assert.Equal([(0, 9f), (2, 3f), (1, 3f)], Select(plan, [5, 1, 4, 3, 2], 5));
        Assert.Equal([(0, 9f), (2, 3f)], Select(plan, [5, 1, 4, 3, 2], 3));
    }

    [Fact]
    public void Shared_experts_follow_with_their_gate_or_a_constant()
    {
        ExpertsPlan plan = Plan(Router() with { Experts = 3, Score = ExpertScore.Logit, RoundsLogits = true }, [0, 1, 2]) with
        {
            Shared = [new SharedExpert(3, Gate: 4), new SharedExpert(4, Weight: 0.25f), new SharedExpert(1), new SharedExpert(5, Gate: 3)],
        };
        (int Slot, float Weight)[] selected = Select(plan, [1, 3, 2, float.NegativeInfinity, 1.001f], 2);
        Assert.Equal([1, 2, 3, 4, 5], selected.Select(static pair => pair.Slot));
        // Slot 1 is the best expert's and a shared one's. Gates are not rounded.
        TestRows.Close([4, 2, (float)(1 / (1 + Math.Exp(-1.001))), 0.25f, 0], [.. selected.Select(static pair => pair.Weight)], 1e-7, "weights");
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Nothing_is_allocated(string family)
    {
        ExpertsPlan plan = Plan(Families.Single(row => row.Name == family).Router) with { Shared = [new SharedExpert(0, Gate: 16)] };
        var logits = new float[Experts + 1];
        var slots = new int[Experts];
        var weights = new float[Experts];
        ExpertRouting.Select(plan, logits, plan.Router.PerToken, 0, slots, weights);
        Assert.Equal(0, Allocation.Of(() => ExpertRouting.Select(plan, logits, plan.Router.PerToken, 0, slots, weights)));
    }

    private static RouterPlan Router() => new()
    {
        Logits = new LinearPlan(1, [new LinearPart(1, new WeightRef("router"))]),
        Experts = Experts,
        PerToken = PerToken,
    };

    private static RouterPlan PhiMoE(int experts) =>
        Router() with { Experts = experts, PerToken = 2, Choice = ExpertChoice.SparseMixer, SparseMixerEpsilon = 0.01f };

    private static RouterPlan DeepSeekV3() => Router() with
    {
        Score = ExpertScore.Sigmoid,
        SelectionBias = [.. Enumerable.Range(0, Experts).Select(static i => -0.8f + 0.37f * (i * 7 % 5))],
        Groups = 4,
        GroupsUsed = 2,
        GroupScore = GroupScore.SumOfTwoLargest,
        Normalize = true,
        NormalizationEpsilon = 1e-20f,
        Scale = 2.5f,
    };

    private static ExpertsPlan Plan(RouterPlan router, int[]? map = null) => new()
    {
        Router = router,
        Slots = [],
        Map = [.. map ?? Enumerable.Range(0, router.Experts)],
    };

    private static (int[] Experts, float[] Weights) Choose(ExpertsPlan plan, float[] logits, int k, ulong seed = 0)
    {
        var experts = new int[k];
        var weights = new float[k];
        ExpertRouting.Choose(plan, (float[])logits.Clone(), seed, experts, weights);
        return (experts, weights);
    }

    private static (int Slot, float Weight)[] Select(ExpertsPlan plan, float[] logits, int k)
    {
        var slots = new int[k + plan.Shared.Length];
        var weights = new float[slots.Length];
        int count = ExpertRouting.Select(plan, logits, k, 0, slots, weights);
        return [.. slots.Zip(weights).Take(count)];
    }

    private static void Check(int[] experts, double[] weights, (int[] Experts, float[] Weights) actual)
    {
        Assert.Equal(experts, actual.Experts);
        TestRows.Close([.. weights.Select(static weight => (float)weight)], actual.Weights, 1e-6, "weights");
    }
}

/// <summary>
/// Routers as their families' code writes them, in double precision, one function per family; <see cref="Margin"/> says how near a decision was to falling the
/// other way.
/// </summary>
internal sealed class RouterOracle
{
    public double Margin { get; private set; } = double.PositiveInfinity;

    public (int[], double[]) Softmax(double[] z, int k, bool norm)
    {
        double[] p = Softmax(z);
        int[] top = Top(z, k);
        double[] weights = [.. top.Select(i => p[i])];
        return (top, norm ? Normalized(weights) : weights);
    }

    public (int[], double[]) Scaled((int[] Experts, double[] Weights) chosen, double factor) =>
        (chosen.Experts, [.. chosen.Weights.Select(weight => weight * factor)]);

    public (int[], double[]) SoftmaxOfChosen(double[] z, int k)
    {
        int[] top = Top(z, k);
        return (top, Softmax([.. top.Select(i => z[i])]));
    }

    /// <summary>Groups that are not used get probability 0; normalised or scaled, never both.</summary>
    public (int[], double[]) DeepSeekV2(double[] z, int k, int groups, int used, bool norm, double scale)
    {
        double[] p = Softmax(z);
        int size = z.Length / groups;
        int[] kept = Top([.. p.Chunk(size).Select(static group => group.Max())], used);
        double[] masked = [.. p.Select((value, i) => kept.Contains(i / size) ? value : 0)];
        int[] top = Top(masked, k);
        double[] weights = [.. top.Select(i => masked[i])];
        return (top, norm ? Normalized(weights) : [.. weights.Select(weight => weight * scale)]);
    }

    public (int[], double[]) DeepSeekV3(double[] z, ImmutableArray<float> bias, int k, int groups, int used, bool norm, double scale)
    {
        double[] s = [.. z.Select(static value => 1 / (1 + Math.Exp(-value)))], c = [.. s.Select((value, i) => value + bias[i])];
        if (groups > 1)
        {
            int size = z.Length / groups;
            int[] kept = Top([.. c.Chunk(size).Select(static group => group.OrderDescending().Take(2).Sum())], used);
            c = [.. c.Select((value, i) => kept.Contains(i / size) ? value : double.NegativeInfinity)];
        }
        int[] top = Top(c, k);
        double[] weights = [.. top.Select(i => s[i])];
        return (top, [.. (norm ? Normalized(weights) : weights).Select(weight => weight * scale)]);
    }

    public (int[], double[]) SparseMixer(double[] z, double epsilon)
    {
        int first = Top(z, 1)[0];
        double[] rest = [.. z];
        rest[first] = double.NegativeInfinity;
        int second = Top(rest, 1)[0];
        return ([first, second], [Near(z, first), Near(rest, second)]);

        double Near(double[] candidates, int best)
        {
            double m = candidates[best];
            var masked = new double[z.Length];
            for (int j = 0; j < z.Length; j++)
            {
                double distance = (m - z[j]) / Math.Max(Math.Abs(z[j]), m);
                Margin = j == best ? Margin : Math.Min(Margin, Math.Abs(distance - 2 * epsilon));
                masked[j] = distance > 2 * epsilon ? double.NegativeInfinity : candidates[j];
            }
            return Softmax(masked)[best];
        }
    }

    public (int[], double[]) SqrtSoftplus(double[] z, int k)
    {
        double[] s = [.. z.Select(static value => Math.Sqrt(Math.Log(1 + Math.Exp(value))))];
        int[] top = Top(s, k);
        return (top, Normalized([.. top.Select(i => s[i])]));
    }

    public int[] Top(double[] keys, int k)
    {
        int[] order = [.. Enumerable.Range(0, keys.Length).OrderByDescending(i => keys[i])];
        for (int i = 0; i < Math.Min(k, keys.Length - 1); i++)
        {
            double gap = keys[order[i]] - keys[order[i + 1]];
            Margin = double.IsNaN(gap) ? Margin : Math.Min(Margin, gap);
        }
        return order[..k];
    }

    private static double[] Softmax(double[] z)
    {
        double[] exponentials = [.. z.Select(value => Math.Exp(value - z.Max()))];
        return [.. exponentials.Select(value => value / exponentials.Sum())];
    }

    private static double[] Normalized(double[] weights) => [.. weights.Select(weight => weight / weights.Sum())];
}
