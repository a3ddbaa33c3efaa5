using Engine.Cpu;
using Engine.Execution;
using Engine.Reference;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Every family with mixtures of experts, read by its reader and run by the executor, gives the logits of its forward pass in plain doubles.</summary>
public sealed class MoeAgainstOracleTests
{
    /// <summary>The backends that run experts, and how near they come: as <see cref="FamiliesAgainstOracleTests"/> says, and float32.</summary>
    private static readonly Dictionary<string, (Func<IBackend> Make, double Tolerance)> Backends = new()
    {
        ["reference"] = (static () => new ReferenceBackend(), FamiliesAgainstOracleTests.ReferenceTolerance),
        ["cpu"] = (static () => new CpuBackend(new CpuOptions { Threads = 2 }), 1e-4),
    };

    /// <summary>The families that the engine reads.</summary>
    private static readonly string[] Families =
    [
        "mixtral",
        "qwen2_moe",
        "qwen3_moe",
        "olmoe",
        "deepseek",
        "deepseek_v2",
        "deepseek_v3",
        "phimoe",
        "gpt_oss",
        "llama_moe_rnn",
    ];

    /// <summary>Another layout, the families that have it, and whether it is there before logits are taken.</summary>
    private static readonly Dictionary<string, (string[] Families, Action<TinyModel> Make, bool Changes)> Layouts = new()
    {
        ["fused"] = (["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3", "phimoe"], MoeLayouts.Fuse, false),
        ["stacked"] = (["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek", "deepseek_v2", "deepseek_v3", "phimoe"], MoeLayouts.Stack, false),
        ["mxfp4"] = (["gpt_oss"], MoeLayouts.Encode, false),
        ["merged"] = ([.. PerExpert, "gpt_oss"], MoeLayouts.Merge, true),
        ["ragged"] = (PerExpert, MoeLayouts.Trim, true),
        ["pruned"] = (["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek", "phimoe", "llama_moe_rnn"], MoeLayouts.Prune, true),
        ["one expert empty"] = (PerExpert, MoeLayouts.Empty, true),
        ["compressed"] = ([.. PerExpert.Except(["llama_moe_rnn"])], MoeLayouts.Compress, true), // whose experts may have no biases of their own
    };

    private static string[] PerExpert => ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek", "deepseek_v2", "deepseek_v3", "phimoe", "llama_moe_rnn"];

    /// <summary>Backend × model.</summary>
    public static TheoryData<string, string> Models => [.. Backends.Keys.SelectMany(static backend => Supported.Select(name => (backend, name)))];

    /// <summary>Backend × model × layout, where a backend does not round activations.</summary>
    public static TheoryData<string, string, string> Variants => [.. Models.SelectMany(static row =>
        Layouts.Where(layout => layout.Value.Families.Contains(MoeModels.Family(row.Data.Item2)) && (row.Data.Item1 == "reference" || layout.Key != "mxfp4"))
            .Where(layout => layout.Key != "one expert empty" || !MoeModels.HasBias(row.Data.Item2))
            .Select(layout => (row.Data.Item1, row.Data.Item2, layout.Key)))];

    /// <summary>Models that may be stored as MXFP4.</summary>
    public static TheoryData<string> Encodable => [.. Supported.Where(static name => Layouts["mxfp4"].Families.Contains(MoeModels.Family(name)))];

    /// <summary>Backend × model × experts per token. A sparse mixer takes two.</summary>
    public static TheoryData<string, string, int> Overrides => [.. Models.Where(static row => MoeModels.Family(row.Data.Item2) != "phimoe")
        .SelectMany(static row => new[] { 1, 4 }.Select(k => (row.Data.Item1, row.Data.Item2, k)))];

    private static IEnumerable<string> Supported => MoeModels.Names.Where(static name => Families.Contains(MoeModels.Family(name)));

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Models))]
    public void A_family_gives_the_logits_of_its_forward_pass(string backend, string name)
    {
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw(name, 21);
        RequireLogits(backend, model, tokens, expected);
    }

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Variants))]
    public void Experts_may_be_stored_otherwise(string backend, string name, string layout)
    {
        (_, Action<TinyModel> make, bool changes) = Layouts[layout];
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw(name, 13, changes ? make : null);
        if (!changes)
        {
            make(model);
        }
        RequireLogits(backend, model, tokens, expected);
    }

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Encodable))]
    public void Experts_in_MXFP4_come_near_on_the_cpu(string name)
    {
        // Rounded to 8 bits, a token could fall to another expert: here it goes to all of them.
        int experts = MoeModels.Experts(MoeModels.Make(name, 0).Config);
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw(name, 13, expertsPerToken: experts);
        MoeLayouts.Encode(model);
        using var harness = new ModelHarness(
            model.ToCheckpoint(), new CpuBackend(new CpuOptions { Threads = 2 }), pageTokens: 4, maxRows: 32, expertsPerToken: experts);
        float[][] actual = harness.Run(tokens, chunk: 8);
        double error = 0, power = 0;
        foreach ((double want, float found) in expected.SelectMany(static row => row).Zip(actual.SelectMany(static row => row)))
        {
            error += (want - found) * (want - found);
            power += want * want;
        }
        Assert.True(Math.Sqrt(error / power) < 0.05, $"{model}: relative error {Math.Sqrt(error / power)}");
        Assert.Equal(actual, harness.Run(tokens, chunk: 1));
    }

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(Overrides))]
    public void Tokens_may_be_sent_to_another_number_of_experts(string backend, string name, int expertsPerToken)
    {
        (TinyModel model, int[] tokens, double[][] expected) = MoeModels.Draw(name, 13, expertsPerToken: expertsPerToken);
        RequireLogits(backend, model, tokens, expected, expertsPerToken);
    }

    private static void RequireLogits(string backend, TinyModel model, int[] tokens, double[][] expected, int? expertsPerToken = null)
    {
        (Func<IBackend> make, double tolerance) = Backends[backend];
        using var harness = new ModelHarness(model.ToCheckpoint(), make(), pageTokens: 4, maxRows: 32, expertsPerToken: expertsPerToken);
        float[][] chunks = harness.Run(tokens, chunk: 8);
        FamiliesAgainstOracleTests.AssertClose(expected, chunks, tolerance, model);
        Assert.Equal(chunks, harness.Run(tokens, chunk: 1));
    }
}
