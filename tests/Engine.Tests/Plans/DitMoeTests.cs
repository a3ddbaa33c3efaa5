using System.Collections.Immutable;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Cpu;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>
/// The mixture of DiT-MoE (Fei et al. 2024) is a plan like any other: softmax, the largest k with the weights that they have, neither normalised nor scaled, and
/// shared experts as one of width 2 · hidden that counts in full.
/// </summary>
public sealed class DitMoeTests
{
    private const int Hidden = 24, Experts = 8, PerToken = 2, Width = 4 * Hidden, SharedWidth = 2 * Hidden, Rows = 11;
    private const string Name = "blocks.0.moe.";

    [Fact]
    public void A_plan_computes_the_mixture_on_every_backend()
    {
        Random random = Seed.Fresh();
        using var checkpoint = new MemoryCheckpoint();
        var weights = new Dictionary<string, float[]>();
        Add("gate", Experts, Hidden);
        foreach ((string module, int width) in Modules())
        {
            Add($"{module}.gate_proj", width, Hidden);
            Add($"{module}.up_proj", width, Hidden);
            Add($"{module}.down_proj", Hidden, width);
        }
        float[] x = TestRows.Normal(random, Rows * Hidden), residual = TestRows.Normal(random, Rows * Hidden);
        double[] expected = [.. x.Chunk(Hidden).Zip(residual.Chunk(Hidden)).SelectMany(pair => Oracle(weights, [.. pair.First], [.. pair.Second]))];
        foreach (IBackend backend in (IBackend[])[new ReferenceBackend(), new CpuBackend(new CpuOptions { Threads = 2 })])
        {
            using (backend)
            {
                TestRows.Close([.. expected.Select(static value => (float)value)], Run(backend, checkpoint, x, residual), 1e-5, backend.Description);
            }
        }

        void Add(string name, int rows, int columns)
        {
            weights[name] = TestRows.Normal(random, rows * columns, 1 / Math.Sqrt(columns));
            checkpoint.Add($"{Name}{name}.weight", [rows, columns], weights[name]);
        }
    }

    private static IEnumerable<(string Module, int Width)> Modules() =>
        [.. Enumerable.Range(0, Experts).Select(static expert => ($"experts.{expert}", Width)), ("shared_experts", SharedWidth)];

    private static ExpertsPlan Plan() => new()
    {
        Router = new RouterPlan
        {
            Logits = new LinearPlan(Hidden, [new LinearPart(Experts, new WeightRef(Name + "gate.weight"))]),
            Experts = Experts,
            PerToken = PerToken,
        },
        Slots =
        [
            .. Modules().Select(static slot => new FeedForwardPlan(
                Activation.SwiGlu, slot.Width, new LinearPlan(Hidden, [Part(slot, "gate_proj", slot.Width), Part(slot, "up_proj", slot.Width)]),
                new LinearPlan(slot.Width, [Part(slot, "down_proj", Hidden)]))),
        ],
        Map = [.. Enumerable.Range(0, Experts)],
        Shared = [new SharedExpert(Experts)],
    };

    private static LinearPart Part((string Module, int Width) slot, string linear, int outputs) => new(outputs, new WeightRef($"{Name}{slot.Module}.{linear}.weight"));

    private static float[] Run(IBackend backend, Checkpoint checkpoint, float[] x, float[] residual)
    {
        ExpertsPlan plan = Plan();
        using DeviceWeights router = backend.LoadLinear(plan.Router.Logits, checkpoint), experts = backend.LoadExperts(plan, checkpoint);
        using Activations input = TestRows.Make(backend, x, Hidden), output = TestRows.Make(backend, residual, Hidden);
        using Activations logits = TestRows.Make(backend, Rows, plan.Router.Outputs);
        using ExpertSelection selection = backend.AllocateSelection(Rows, PerToken + 1);
        using KvStorage kv = backend.AllocateKv([new KvSlotPlan(1, 32)], KvFormat.F32, 1, 16);
        var step = new StepPlan(1);
        step.AddTrack(0, 0);
        step.SetSlot(0, [0], 0);
        for (int row = 0; row < Rows; row++)
        {
            step.AddRow(row, row, logits: false);
        }
        TestRows.Begin(backend, step, kv);
        backend.Multiply(router, input, logits);
        backend.SelectExperts(plan, logits, PerToken, selection);
        backend.ApplyExperts(experts, input, selection, output);
        float[] result = TestRows.Read(backend, output);
        backend.EndStep();
        return result;
    }

    private static double[] Oracle(Dictionary<string, float[]> weights, double[] x, double[] residual)
    {
        double[] p = OracleMath.Softmax(OracleMath.Linear(x, weights["gate"], null)), sum = OracleMath.Add(residual, Mlp("shared_experts"));
        foreach (int expert in Enumerable.Range(0, Experts).OrderByDescending(expert => p[expert]).Take(PerToken))
        {
            sum = OracleMath.Add(sum, [.. Mlp($"experts.{expert}").Select(value => p[expert] * value)]);
        }
        return sum;

        double[] Mlp(string module)
        {
            double[] gate = OracleMath.Linear(x, weights[$"{module}.gate_proj"], null), up = OracleMath.Linear(x, weights[$"{module}.up_proj"], null);
            return OracleMath.Linear([.. gate.Zip(up, static (g, u) => OracleMath.Silu(g) * u)], weights[$"{module}.down_proj"], null);
        }
    }
}
