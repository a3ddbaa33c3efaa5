using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Every branch of recursion and routing, read by the reader and run by the executor, gives the logits and depths of a forward pass in plain doubles.</summary>
public sealed class RecursionAgainstOracleTests
{
    private const double ReferenceTolerance = 2e-5, CpuTolerance = 2e-4;

    /// <summary>Decisions nearer than this to falling otherwise are not a fair test of float32: another model is drawn.</summary>
    private const double LeastMargin = 1e-3;

    /// <summary>Sharing, layers, recursions, router, shared keys and values.</summary>
    public static TheoryData<string, int, int, string?, bool> Models => new()
    {
        { "cycle", 6, 3, null, false },
        { "cycle", 6, 2, null, true },
        { "sequence", 6, 3, null, false },
        { "sequence", 6, 3, null, true },
        { "middle_cycle", 8, 3, null, false },
        { "middle_cycle", 8, 2, null, true },
        { "middle_sequence", 8, 3, null, false },
        { "middle_cycle", 8, 3, """{"type": "expert", "router_type": "linear", "expert": {"router_func": "sigmoid", "alpha": 0.1, "sampling": "aux_loss", "gating": "weighted"}}""", false },
        { "middle_cycle", 8, 3, """{"type": "expert", "router_type": "linear", "expert": {"router_func": "sigmoid", "alpha": 0.7, "sampling": null, "gating": "additive"}}""", false },
        { "middle_cycle", 8, 3, """{"type": "expert", "router_type": "linear", "temp": 2.5, "expert": {"router_func": "tanh", "alpha": 0.4, "sampling": "aux_loss", "gating": "weighted"}}""", false },
        { "middle_cycle", 6, 4, """{"type": "expert", "router_type": "linear", "expert": {"router_func": null, "sampling": "aux_loss", "gating": "weighted"}}""", false },
        { "middle_cycle", 8, 3, """{"type": "expert", "router_type": "linear", "capacity": "0.6,0.5,0.2", "expert": {"router_func": "sigmoid", "sampling": "aux_loss", "gating": "weighted"}}""", false },
        { "middle_cycle", 8, 3, """{"type": "expert", "router_type": "linear", "capacity": "0.6,0.5,0.2", "expert": {"router_func": "sigmoid", "sampling": "aux_loss", "gating": "additive"}}""", true },
        { "middle_cycle", 8, 3, """{"type": "expert", "router_type": "mlp", "temp": 0.5, "expert": {"router_func": "sigmoid", "sampling": "aux_router", "gating": "weighted"}}""", true },
        { "cycle", 6, 3, """{"type": "expert", "router_type": "wide_mlp", "expert": {"router_func": "tanh", "sampling": "aux_router", "gating": "weighted"}}""", false },
        { "cycle", 4, 2, """{"type": "expert", "router_type": "linear", "expert": {"router_func": "sigmoid", "sampling": "aux_loss", "gating": "weighted"}}""", true },
        { "middle_cycle", 8, 3, """{"type": "token", "router_type": "linear", "token": {"router_func": "softmax", "alpha": 1.0, "balancing": "loss", "gating": "weighted"}}""", false },
        { "middle_cycle", 8, 2, """{"type": "token", "router_type": "linear", "temp": 0.4, "token": {"router_func": "sigmoid", "alpha": 0.3, "balancing": "loss_free", "gating": "weighted"}}""", true },
        { "middle_cycle", 8, 3, """{"type": "token", "router_type": "mlp", "token": {"router_func": "softmax", "alpha": 0.8, "balancing": "loss_free", "gating": "additive"}}""", false },
    };

    [Theory]
    [MemberData(nameof(Models))]
    public void Logits_and_depths_are_those_of_the_forward_pass(string sharing, int layers, int recursions, string? router, bool kv)
    {
        Draw(sharing, layers, recursions, router, kv, official: false, out TinyModel model, out int[] tokens, out double[][] expected, out int[] depths);
        foreach ((IBackend backend, double tolerance) in new (IBackend, double)[]
        {
            (new ReferenceBackend(), ReferenceTolerance),
            (new CpuBackend(new CpuOptions { Threads = 2 }), CpuTolerance),
        })
        {
            using var harness = new ModelHarness(model.ToCheckpoint(), backend, pageTokens: 4, maxRows: 32);
            Assert.Equal(router is not null, harness.Plan.Layers.Recursion?.Router is not null);
            FamiliesAgainstOracleTests.AssertClose(expected, harness.Run(tokens, chunk: 7), tolerance, model);
            FamiliesAgainstOracleTests.AssertClose(expected, harness.Run(tokens, chunk: 1), tolerance, model);
        }
        RequireDepths(model, tokens, depths, DepthSelection.Causal);
    }

    /// <summary>Only where depths choose tokens are there two ways to choose.</summary>
    public static TheoryData<string, int, int, string?, bool> ExpertModels =>
        [.. Models.Where(static row => row.Data.Item4?.Contains("\"expert\"", StringComparison.Ordinal) == true)];

    [Theory]
    [MemberData(nameof(ExpertModels))]
    public void The_official_selection_takes_the_best_of_all_tokens(string sharing, int layers, int recursions, string? router, bool kv)
    {
        Draw(sharing, layers, recursions, router, kv, official: true, out TinyModel model, out int[] tokens, out double[][] expected, out int[] depths);
        using LanguageModel loaded = LanguageModel.Load(
            model.ToCheckpoint(), new LanguageModelOptions { KvFormat = KvFormat.F32, Threads = 1, DepthSelection = DepthSelection.Official });
        using LogitsSession session = loaded.CreateLogitsSession();
        var logits = new float[tokens.Length][];
        session.Feed(tokens, 0, (t, row) => logits[t] = row.ToArray());
        FamiliesAgainstOracleTests.AssertClose(expected, logits, CpuTolerance, model);
        Assert.Equal(depths, session.Depths);
    }

    private static void RequireDepths(TinyModel model, int[] tokens, int[] expected, DepthSelection selection)
    {
        using LanguageModel loaded = LanguageModel.Load(
            model.ToCheckpoint(), new LanguageModelOptions { KvFormat = KvFormat.F32, Threads = 1, DepthSelection = selection });
        using LogitsSession session = loaded.CreateLogitsSession();
        session.Feed(tokens);
        if (loaded.Plan.Layers.Recursion is not null)
        {
            Assert.Equal(expected, session.Depths);
        }
    }

    /// <summary>Draws models until one has no decision too close to call, and no sum that cancels.</summary>
    private static void Draw(
        string sharing, int layers, int recursions, string? router, bool kv, bool official,
        out TinyModel model, out int[] tokens, out double[][] expected, out int[] depths)
    {
        string? kind = router is null ? null : router.Contains("\"expert\"", StringComparison.Ordinal) ? "expert" : "token";
        for (int attempt = 0; attempt < 2000; attempt++)
        {
            model = RecursiveModels.Make(sharing, layers, recursions, router, kv);
            tokens = model.Tokens(21);
            var oracle = new RecursiveOracle(model, sharing, layers, recursions, kind, kv, official);
            expected = oracle.Logits(tokens);
            depths = oracle.Depths;
            // All tokens at one depth would test little.
            if (oracle.Margin >= LeastMargin && oracle.SmallestFactor >= 0.5 && (kind is null || depths.Distinct().Count() > 1))
            {
                return;
            }
        }
        throw new InvalidOperationException("no model without close decisions was drawn");
    }
}
