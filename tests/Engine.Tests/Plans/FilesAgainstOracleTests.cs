using Engine.Checkpoints;
using Engine.Checkpoints.Safetensors;
using Engine.Checkpoints.Writing;
using Engine.Reference;
using Engine.Tests.Checkpoints;
using Engine.Tests.Plans.Oracle;
using static Engine.Tests.Plans.FamiliesAgainstOracleTests;

namespace Engine.Tests.Plans;

/// <summary>
/// The whole way from files: a Hugging Face folder and a GGUF of each tiny model give the logits of Hugging Face's forward pass.
/// </summary>
public sealed class FilesAgainstOracleTests
{
    public static TheoryData<string> Models => [.. TinyModels.Names];

    public static TheoryData<string> ModelsInGguf =>
    [
        "llama tied", "llama grouped queries, llama3 rope, untied", "llama linear rope, head_dim", "llama yarn",
        "llama rope_parameters", "smollm",
        "mistral window 8", "mistral without window", "qwen2", "qwen3", "gpt2",
    ];

    /// <summary>Models that GGUF has no place for, and the key that says so.</summary>
    public static TheoryData<string, string> ModelsNotInGguf => new()
    {
        { "llama dynamic rope within its context", "rope_scaling" },
        { "llama biases, gelu", "hidden_act" },
        { "gpt2 without prefix, inner width, exact gelu", "activation_function" },
        { "gpt2 scaled by layer, own head", "scale_attn_by_inverse_layer_idx" },
        { "gpt2 not scaled", "scale_attn_weights" },
        { "qwen2 window above layer 1", "max_window_layers" },
        { "qwen3 layer types", "layer_types" },
        { "llama yarn with its own factors", "rope_scaling" },
    };

    [Theory]
    [MemberData(nameof(Models))]
    public void A_folder_gives_the_logits_of_the_forward_pass(string name)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        int[] tokens = model.Tokens(9);
        using var folder = new TemporaryFolder();
        using (MemoryCheckpoint source = model.ToCheckpoint())
        {
            SafetensorsWriter.WriteFolder(
                folder.Path, [.. source.TensorNames.Select(tensor => TensorSource.Convert(source[tensor], DType.F32))], shardBytes: 9000);
        }
        File.WriteAllText(Path.Combine(folder.Path, "config.json"), model.Config.ToJsonString());
        using var harness = new ModelHarness(CheckpointFile.Open(folder.Path), new ReferenceBackend(), pageTokens: 4);
        AssertClose(OracleLogits(model, tokens), harness.Run(tokens, chunk: 9), ReferenceTolerance, model);
    }

    [Theory]
    [MemberData(nameof(ModelsInGguf))]
    public void A_gguf_gives_the_logits_of_the_forward_pass(string name)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        int[] tokens = model.Tokens(9);
        using var folder = new TemporaryFolder();
        string path = Convert(model, folder);
        using var harness = new ModelHarness(CheckpointFile.Open(path), new ReferenceBackend(), pageTokens: 4);
        // Metadata and the factors of llama3 are float32.
        AssertClose(OracleLogits(model, tokens), harness.Run(tokens, chunk: 9), 1e-5, model);
    }

    [Theory]
    [MemberData(nameof(ModelsNotInGguf))]
    public void What_gguf_has_no_place_for_is_refused(string name, string key)
    {
        TinyModel model = TinyModels.Make(name, Random.Shared.Next());
        using var folder = new TemporaryFolder();
        Assert.Equal(key, Assert.Throws<EngineException>(() => Convert(model, folder)).Item);
    }

    private static string Convert(TinyModel model, TemporaryFolder folder)
    {
        string path = Path.Combine(folder.Path, "model.gguf");
        using MemoryCheckpoint source = model.ToCheckpoint();
        GgufConverter.Convert(source, path, QuantizationRecipe.Named("F32"));
        return path;
    }
}
