using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;
using static Engine.Tests.Plans.ExpertModels;

namespace Engine.Tests.Plans;

/// <summary>Experts whose bytes are the same become one slot, mixtures whose bytes are the same one block, and no others do.</summary>
public sealed class SharedExpertsTests
{
    [Theory]
    [InlineData("mixtral", false)]
    [InlineData("qwen2_moe", false)]
    [InlineData("qwen3_moe", true)]
    [InlineData("mixtral", true)]
    public void Experts_that_are_copies_share_a_slot(string family, bool fused)
    {
        TinyModel model = Make(family);
        CopyExpert(model, 1, 0, 3);
        CopyExpert(model, 1, 2, 4);
        CopyExpert(model, 1, 2, 5);
        ExpertsPlan[] plans = Plan(fused ? Fuse(model) : model);
        Assert.Equal([0, 1, 2, 0, 2, 2], plans[1].Map);
        Assert.Equal(family == "qwen2_moe" ? 4 : 3, plans[1].Slots.Length);
        Assert.Equal(Enumerable.Range(0, Experts), plans[0].Map);
        if (family == "qwen2_moe")
        {
            Assert.Equal([new SharedExpert(3, Experts)], plans[1].Shared);
            Assert.Equal(SharedWidth, plans[1].Slots[3].Width);
        }
    }

    [Fact]
    public void One_element_of_any_tensor_makes_the_difference()
    {
        foreach (bool fused in new[] { false, true })
        {
            foreach (string linear in UsualNames)
            {
                TinyModel model = Make("qwen3_moe");
                CopyExpert(model, 2, 1, 5);
                model.Tensors[$"model.layers.2.mlp.experts.5.{linear}.weight"].Values[Random.Shared.Next(Width * Hidden)] += 1;
                Assert.Equal(Enumerable.Range(0, Experts), Plan(fused ? Fuse(model) : model)[2].Map);
            }
        }
    }

    [Fact]
    public void A_shared_expert_keeps_its_slot_though_a_routed_one_is_its_copy()
    {
        TinyModel model = Make("deepseek", """{"n_shared_experts": 1}""");
        foreach (string linear in UsualNames)
        {
            model.Tensors[$"model.layers.0.mlp.shared_experts.{linear}.weight"] = model.Tensors[$"model.layers.0.mlp.experts.2.{linear}.weight"];
        }
        ExpertsPlan plan = Plan(model)[0];
        Assert.Equal(Experts + 1, plan.Slots.Length);
        Assert.Equal([new SharedExpert(Experts)], plan.Shared);
    }

    [Theory]
    [InlineData("mixtral", false)]
    [InlineData("qwen2_moe", false)]
    [InlineData("olmoe", true)]
    public void Mixtures_that_are_copies_are_one(string family, bool fused)
    {
        TinyModel model = Make(family);
        CopyMixture(model, 0, 2);
        ExpertsPlan[] plans = Plan(fused ? Fuse(model) : model);
        Assert.Same(plans[0], plans[2]);
        Assert.NotSame(plans[0], plans[1]);
        string router = $"{Module(family, 2)}.gate.weight";
        model = Make(family);
        CopyMixture(model, 0, 2);
        model.Tensors[router].Values[Random.Shared.Next(Experts * Hidden)] += 1;
        plans = Plan(fused ? Fuse(model) : model);
        Assert.NotSame(plans[0], plans[2]);
    }

    [Fact]
    public void Mixtures_that_differ_in_the_router_alone_are_not_one()
    {
        TinyModel model = Make("mixtral");
        CopyMixture(model, 0, 2);
        model.Config["num_experts_per_tok"] = new System.Text.Json.Nodes.JsonArray(2, 2, 3);
        ExpertsPlan[] plans = Plan(model);
        Assert.NotSame(plans[0], plans[2]);
        Assert.Equal([2, 2, 3], plans.Select(static plan => plan.Router.PerToken));
    }

    private static void CopyExpert(TinyModel model, int layer, int from, int to)
    {
        string start = $"{Module(model.Name, layer)}.experts.{from}.";
        Copy(model, start, $"{Module(model.Name, layer)}.experts.{to}.");
    }

    private static void CopyMixture(TinyModel model, int from, int to) =>
        Copy(model, Module(model.Name, from) + ".", Module(model.Name, to) + ".");

    private static void Copy(TinyModel model, string from, string to)
    {
        foreach (string name in model.Tensors.Keys.Where(name => name.StartsWith(from, StringComparison.Ordinal)).ToArray())
        {
            (long[] shape, float[] values) = model.Tensors[name];
            model.Tensors[to + name[from.Length..]] = (shape, [.. values]);
        }
    }

    private static ExpertsPlan[] Plan(TinyModel model)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        LayerMap layers = ModelPlanReader.Read(checkpoint).Layers;
        return [.. layers.Steps.Select(step => layers.Blocks[step.Block].Experts!)];
    }
}
