using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>The training run's YAML says the same as the section in config.json, and a hostile one does no harm.</summary>
public sealed class RecursionYamlTests
{
    private const string Run = """
        name: 250720_pretrain_smollm-360m_rec3_middle_cycle_random_lr3e-3_mor_expert_linear
        wandb: true
        wandb_run_name: null
        learning_rate: 0.003
        model_config: null
        recursive:
          enable: true
          base_depth: null
          num_recursion: 3
          sharing: middle_cycle  # cycle, sequence, middle_cycle, middle_sequence
          ln_share: yes
          initialization: random
        kv_sharing:
          enable: false
          base_depth: null
          num_recursion: null
          sharing: null
          update_cache: false
        relaxation:
          enable: false
          skip_first_loop: false
          method: lora
          lora:
            r: 16
            dropout: 0.1
            target_modules: ['q_proj', 'v_proj']
            rank_pattern: null
        mor:
          enable: true
          type: "expert"
          capacity: null
          rand_router: false
          router_type: linear
          z_loss: false
          z_coeff: 1e-5
          temp: 1.0
          expert:
            cap_warmup_step: 0
            router_func: 'sigmoid'
            alpha: 0.1
            sampling: aux_loss
            include_first: true
            coeff: 0.001
            gating: weighted
          token:
            bal_warmup_step: 0
            router_func: softmax
            alpha: 1.0
            balancing: loss
            coeff: 0.1
            u: 0.001
            gating: weighted
        lr_scheduler_kwargs:
          num_decay_steps: 2832
          decay_type: linear 
        evaluation:
          tasks: lambada_openai,hellaswag
        """;

    public static TheoryData<string> Goldens =>
        [.. Directory.GetDirectories(GoldenFolder).Select(static path => Path.GetFileName(path))];

    private static string GoldenFolder => Path.Combine(AppContext.BaseDirectory, "Golden", "mor");

    [Fact]
    public void The_run_of_the_authors_makes_the_goldens_plan()
    {
        using Checkpoint golden = CheckpointFile.Open(Path.Combine(GoldenFolder, "mor_expert_rec3_cache"));
        using MemoryCheckpoint copy = Copy(golden);
        copy.AddAsset("run.yaml", Encoding.UTF8.GetBytes(Run));
        Assert.Equal(PlanText.Of(ModelPlanReader.Read(golden)), PlanText.Of(ModelPlanReader.Read(copy)));
    }

    [Theory]
    [MemberData(nameof(Goldens))]
    public void A_section_as_yaml_makes_the_same_plan(string name)
    {
        using Checkpoint golden = CheckpointFile.Open(Path.Combine(GoldenFolder, name));
        using MemoryCheckpoint copy = Copy(golden);
        var yaml = new StringBuilder();
        Write(yaml, (JsonObject)golden.Config["mor"]!, "");
        copy.AddAsset("settings.yml", Encoding.UTF8.GetBytes(yaml.ToString()));
        Assert.Equal(PlanText.Of(ModelPlanReader.Read(golden)), PlanText.Of(ModelPlanReader.Read(copy)));
    }

    [Fact]
    public void A_message_names_the_file_and_the_key()
    {
        EngineException error = Refuse(Run.Replace("rand_router: false", "rand_router: true", StringComparison.Ordinal));
        Assert.Equal("run.yaml: mor.rand_router", error.Item);
    }

    [Fact]
    public void Other_yaml_plays_no_part()
    {
        using MemoryCheckpoint checkpoint = TinyModels.Make("llama tied", 1).ToCheckpoint();
        string expected = PlanText.Of(ModelPlanReader.Read(checkpoint));
        checkpoint.AddAsset("mergekit_config.yml", Encoding.UTF8.GetBytes("slices: &all [{{{\nnested:\n  recursive: yes"));
        Assert.Equal(expected, PlanText.Of(ModelPlanReader.Read(checkpoint)));
    }

    [Fact]
    public void Two_runs_are_ambiguous()
    {
        using Checkpoint golden = CheckpointFile.Open(Path.Combine(GoldenFolder, "mor_expert_rec3_cache"));
        using MemoryCheckpoint copy = Copy(golden);
        copy.AddAsset("a.yaml", Encoding.UTF8.GetBytes(Run));
        copy.AddAsset("b.yaml", Encoding.UTF8.GetBytes(Run));
        EngineException error = Assert.Throws<EngineException>(() => ModelPlanReader.Read(copy));
        Assert.Contains("both a.yaml and b.yaml", error.Reason, StringComparison.Ordinal);
    }

    public static TheoryData<string, string> Hostile => new()
    {
        { "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nrecursive: *c", "aliases" },
        { "recursive: !!python/object:os.system {}", "tag" },
        { "recursive: {enable: true, enable: false}", "twice" },
        { "recursive: " + new string('[', 100), "" },
        { "recursive: " + new string('[', 40) + new string(']', 40), "nest deeper" },
        { "recursive: [" + string.Concat(Enumerable.Repeat("1,", 30_000)) + "1]", "more than" },
        { "recursive:\n" + new string(' ', 1 << 20), "bytes" },
        { "recursive: {a: 1\n", "" },
        { "recursive: 'open", "" },
        { "recursive: {}\n---\nrecursive: {}", "" },
        { "recursive: 3", "expected an object" },
        { "? [a]\n: b\nrecursive: {}", "" },
        { "recursive: {sharing: cycle}\n\t\tx: y", "" },
        { "recursive: \"\\ud800\"", "" },
    };

    [Theory]
    [MemberData(nameof(Hostile))]
    public void Hostile_yaml_is_refused(string yaml, string reason) =>
        Assert.Contains(reason, Refuse(yaml).Message, StringComparison.Ordinal);

    [Fact]
    public void Bytes_that_are_no_text_are_refused() => Assert.Contains("not YAML", Refuse([.. "recursive: "u8, 0xFF, 0xFE]).Message, StringComparison.Ordinal);

    [Fact]
    public void Whatever_the_yaml_says_it_makes_a_plan_or_our_exception()
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        using Checkpoint golden = CheckpointFile.Open(Path.Combine(GoldenFolder, "mor_expert_rec3_cache"));
        using MemoryCheckpoint copy = Copy(golden);
        byte[] pieces = Encoding.UTF8.GetBytes("[]{}:,&*!|>'\"%@`#-? \n\t\\~0x");
        for (int round = 0; round < 2000; round++)
        {
            byte[] yaml = Encoding.UTF8.GetBytes(Run);
            for (int change = random.Next(1, 4); change > 0; change--)
            {
                yaml[random.Next(yaml.Length)] = pieces[random.Next(pieces.Length)];
            }
            copy.AddAsset("run.yaml", yaml);
            try
            {
                ModelPlanReader.Read(copy);
            }
            catch (EngineException)
            {
            }
            catch (Exception exception)
            {
                Assert.Fail($"seed {seed}, round {round}: {exception}\n{Encoding.UTF8.GetString(yaml)}");
            }
        }
    }

    private static EngineException Refuse(string yaml) => Refuse(Encoding.UTF8.GetBytes(yaml));

    private static EngineException Refuse(byte[] yaml)
    {
        using Checkpoint golden = CheckpointFile.Open(Path.Combine(GoldenFolder, "mor_expert_rec3_cache"));
        using MemoryCheckpoint copy = Copy(golden);
        copy.AddAsset("run.yaml", yaml);
        return Assert.Throws<EngineException>(() => ModelPlanReader.Read(copy));
    }

    private static MemoryCheckpoint Copy(Checkpoint golden)
    {
        var config = (JsonObject)golden.Config.DeepClone();
        config.Remove("mor");
        var copy = new MemoryCheckpoint("copy", config);
        foreach (string tensor in golden.TensorNames)
        {
            TensorView view = golden[tensor];
            copy.Add(tensor, view.DType, view.Shape, view.Bytes);
        }
        return copy;
    }

    private static void Write(StringBuilder yaml, JsonObject section, string indent)
    {
        foreach ((string key, JsonNode? value) in section)
        {
            if (value is JsonObject inner)
            {
                yaml.AppendLine(CultureInfo.InvariantCulture, $"{indent}{key}:");
                Write(yaml, inner, indent + "  ");
            }
            else
            {
                bool isText = value?.GetValueKind() == JsonValueKind.String;
                yaml.AppendLine(CultureInfo.InvariantCulture, $"{indent}{key}: {(isText ? value!.GetValue<string>() : value?.ToJsonString() ?? "null")}");
            }
        }
    }
}
