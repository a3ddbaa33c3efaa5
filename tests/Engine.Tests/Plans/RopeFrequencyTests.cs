using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Plans;

/// <summary>Frequencies of published configurations against closed forms.</summary>
public sealed class RopeFrequencyTests
{
    private const int HeadDim = 128;

    [Fact]
    public void Plain_frequencies_are_powers_of_theta()
    {
        RopePlan rope = Read("""{"rope_theta": 10000.0}""");
        Assert.Equal(RopePairing.Halves, rope.Pairing);
        Assert.Equal(HeadDim, rope.Dimensions);
        Assert.Equal(1f, rope.Magnitude);
        Assert.Equal(1, rope.InverseFrequencies[0]);
        Assert.Equal(0.1, rope.InverseFrequencies[16], 1e-15);
        Assert.Equal(0.01, rope.InverseFrequencies[32], 1e-15);
        Assert.Equal(Math.Pow(10000, -126.0 / 128), rope.InverseFrequencies[63], 1e-18);
    }

    [Fact]
    public void Llama_3_1_keeps_short_wavelengths_divides_long_ones_and_blends_between()
    {
        // config.json of Llama 3.1 8B
        RopePlan rope = Read("""
            {"rope_theta": 500000.0, "max_position_embeddings": 131072, "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, 
             "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}}
            """);
        for (int pair = 0; pair < HeadDim / 2; pair++)
        {
            double plain = Math.Pow(500000, -2.0 * pair / HeadDim), wavelength = 2 * Math.PI / plain;
            // 8192 / 4 = 2048 and 8192 / 1 = 8192 tokens; the blend is linear in 8192 / wavelength, from 1 to 4.
            double share = Math.Clamp((8192 / wavelength - 1) / 3, 0, 1);
            Assert.Equal(plain * (share + (1 - share) / 8), rope.InverseFrequencies[pair], 1e-15);
        }
        Assert.Equal(1, rope.InverseFrequencies[0]);
        // Pairs 29 to 34 have wavelengths from 2401 to 6696 tokens; only they are blended.
        Assert.Equal(Math.Pow(500000, -56.0 / 128), rope.InverseFrequencies[28], 1e-15);
        Assert.True(rope.InverseFrequencies[29] < 0.99 * Math.Pow(500000, -58.0 / 128));
        Assert.True(rope.InverseFrequencies[34] > 1.01 * Math.Pow(500000, -68.0 / 128) / 8);
        Assert.Equal(Math.Pow(500000, -70.0 / 128) / 8, rope.InverseFrequencies[35], 1e-15);
    }

    [Fact]
    public void Longrope_divides_by_its_short_factors_within_the_original_context()
    {
        string factors = string.Join(", ", Enumerable.Range(0, HeadDim / 2).Select(static pair => $"{1 + pair}.5"));
        // As Phi-3.5-MoE: the magnitude is given.
        RopePlan given = Read($$"""
            {"max_position_embeddings": 131072, "rope_scaling": {"type": "longrope", "short_factor": [{{factors}}], "long_factor": [{{factors}}],
             "short_mscale": 1.25, "long_mscale": 1.5, "original_max_position_embeddings": 4096} }
            """);
        Assert.Equal(1.25f, given.Magnitude);
        for (int pair = 0; pair < HeadDim / 2; pair++)
        {
            Assert.Equal(Math.Pow(10000, -2.0 * pair / HeadDim) / (pair + 1.5), given.InverseFrequencies[pair], 1e-15);
        }
        // As Phi-3: extended 32 times, so sqrt(1 + ln 32 / ln 4096) = sqrt(1 + 5 / 12).
        RopePlan derived = Read($$"""
            {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
             "rope_scaling": {"type": "longrope", "short_factor": [{{factors}}], "long_factor": [{{factors}}]} }
            """);
        Assert.Equal(Math.Sqrt(17.0 / 12), derived.Magnitude, 1e-6);
    }

    [Fact]
    public void Yarn_of_qwen2_5_ramps_between_pairs_23_and_39_and_raises_the_magnitude()
    {
        // as Qwen 2.5's model card says to extend it to 131072 tokens
        RopePlan rope = Read("""
            {"rope_theta": 1000000.0, "max_position_embeddings": 32768,
             "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}}
            """);
        // Pair of n turns: 64·ln(32768 / 2πn) / ln(10⁶): 23.6 for 32 turns, 39.6 for one; floor and ceiling make 23 and 40.
        for (int pair = 0; pair < HeadDim / 2; pair++)
        {
            double plain = Math.Pow(1e6, -2.0 * pair / HeadDim), interpolated = Math.Clamp((pair - 23) / 17.0, 0, 1);
            Assert.Equal(plain * (1 - interpolated + interpolated / 4), rope.InverseFrequencies[pair], 1e-15);
        }
        Assert.Equal(1.1386294361119891, rope.Magnitude, 1e-7); // 0.1·ln 4 + 1
    }

    [Fact]
    public void Yarn_extends_the_context_by_its_factor()
    {
        ModelPlan plan = Plan("""
            {"max_position_embeddings": 32768, "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}}
            """);
        Assert.Equal(131072, plan.ContextLength);
    }

    [Fact]
    public void Dynamic_scaling_is_plain_within_the_trained_context_and_stops_there()
    {
        ModelPlan plan = Plan("""
            {"max_position_embeddings": 16384, "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 4096, "type": "dynamic"}}
            """);
        Assert.Equal(4096, plan.ContextLength);
        Assert.Equal(0.1, plan.Layers.Blocks[0].Attention!.Rope!.InverseFrequencies[16], 1e-15);
    }

    [Fact]
    public void A_part_of_the_head_is_rotated_where_the_configuration_says_so()
    {
        RopePlan rope = Read("""{"partial_rotary_factor": 0.25}""");
        Assert.Equal(32, rope.Dimensions);
        Assert.Equal(Math.Pow(10000, -30.0 / 32), rope.InverseFrequencies[15], 1e-15);
    }

    [Fact]
    public void Layers_share_one_rotation()
    {
        ModelPlan plan = Plan("{}");
        Assert.Same(plan.Layers.Blocks[0].Attention!.Rope, plan.Layers.Blocks[2].Attention!.Rope);
    }

    private static RopePlan Read(string differences) => Plan(differences).Layers.Blocks[0].Attention!.Rope!;

    private static ModelPlan Plan(string differences)
    {
        TinyModel model = TinyModels.Make("llama with heads of 128", Random.Shared.Next());
        foreach ((string key, JsonNode? value) in (JsonObject)JsonNode.Parse(differences)!)
        {
            model.Config[key] = value?.DeepClone();
        }
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        return ModelPlanReader.Read(checkpoint);
    }
}
