using Engine.Execution;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>What each family's router is as data chooses and weighs as the family's code does.</summary>
public sealed class RoutersAgainstOracleTests
{
    /// <summary>Model and what is said of its router.</summary>
    private static readonly Dictionary<string, Func<RouterPlan, RouterPlan>> Routers = new()
    {
        ["mixtral"] = static router => router with { Normalize = true },
        ["qwen2_moe"] = static router => router,
        ["qwen3_moe"] = static router => router with { Normalize = true },
        ["deepseek"] = static router => router,
        ["deepseek normalised, every other layer"] = static router => router with { Normalize = true, NormalizationEpsilon = 1e-20f },
        ["deepseek_v2"] = static router => router with { Groups = 4, GroupsUsed = 2, GroupScore = GroupScore.Largest, Scale = 1.6f },
        ["deepseek_v2 lite"] = static router => router,
        ["deepseek_v2 normalised, biases"] = static router => router with
        {
            Groups = 4,
            GroupsUsed = 2,
            GroupScore = GroupScore.Largest,
            Normalize = true,
            NormalizationEpsilon = 1e-20f,
        },
        ["deepseek_v3"] = static router => V3(router) with { Groups = 2, Normalize = true },
        ["deepseek_v3 yarn, four groups"] = static router => V3(router) with { Groups = 4, GroupsUsed = 2, Normalize = true },
        ["deepseek_v3 one group, not normalised, whole queries"] = V3,
        ["phimoe"] = static router => router with { Choice = ExpertChoice.SparseMixer, SparseMixerEpsilon = 0.01f },
        ["phimoe wide mixing"] = static router => router with { Choice = ExpertChoice.SparseMixer, SparseMixerEpsilon = 0.3f },
        ["gpt_oss"] = static router => router with { Score = ExpertScore.Logit, Weight = ExpertWeight.SoftmaxOfChosen },
        ["llama_moe_rnn plain cell"] = static router => router with { Normalize = true },
    };

    public static TheoryData<string> Models => [.. Routers.Keys];

    [Theory]
    [MemberData(nameof(Models))]
    public void A_router_chooses_and_weighs_as_its_family(string name)
    {
        Random random = Seed.Fresh();
        TinyModel model = MoeModels.Make(name, random.Next());
        int experts = MoeModels.Experts(model.Config), perToken = (int)model.Config["num_experts_per_tok"]!;
        for (int draw = 0; draw < 100; draw++)
        {
            float[] z = [.. Enumerable.Range(0, experts).Select(_ => (float)(4 * random.NextDouble() - 2))];
            float[]? bias = MoeModels.Family(name) == "deepseek_v3" ? [.. z.Select(_ => (float)(random.NextDouble() - 1))] : null;
            var oracle = new RouterOracle(model.Config, null);
            (int Expert, double Weight)[] expected = oracle.Choose([.. z], bias);
            if (oracle.Margin < 1e-4)
            {
                continue;
            }
            var chosen = new int[perToken];
            var weights = new float[perToken];
            RouterPlan router = Routers[name](new RouterPlan { Logits = new LinearPlan(1, []), Experts = experts, PerToken = perToken });
            var plan = new ExpertsPlan
            {
                Router = router with { SelectionBias = bias is null ? [] : [.. bias] },
                Slots = [],
                Map = [.. Enumerable.Range(0, experts)],
            };
            ExpertRouting.Choose(plan, z, 0, chosen, weights);
            Assert.Equal(expected.Select(static choice => choice.Expert), chosen);
            for (int i = 0; i < perToken; i++)
            {
                Assert.Equal(expected[i].Weight, weights[i], 1e-6 * expected[i].Weight);
            }
        }
    }

    private static RouterPlan V3(RouterPlan router) => router with
    {
        Score = ExpertScore.Sigmoid,
        GroupScore = GroupScore.SumOfTwoLargest,
        NormalizationEpsilon = 1e-20f,
        Scale = 2.5f,
    };
}
