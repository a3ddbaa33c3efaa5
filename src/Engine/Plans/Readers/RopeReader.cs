using System.Collections.Immutable;

namespace Engine.Plans.Readers;

/// <summary>
/// Reads <c>rope_theta</c>, <c>rope_scaling</c> (or <c>rope_parameters</c>, which holds both), <c>partial_rotary_factor</c>, and the
/// extension keys
/// <c>rope_pairing</c>, <c>rope_factors_tensor</c>, <c>rope_short_factors_tensor</c> and <c>rope_long_factors_tensor</c> that decorators over other file
/// formats add.
/// </summary>
internal sealed class RopeReader
{
    private static readonly string[] PlainKeys =
        ["type", "rope_type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings", "finetuned"];

    private static readonly Dictionary<string, string[]> KeysOfScaling = new()
    {
        ["default"] = [],
        ["linear"] = ["factor"],
        ["dynamic"] = ["factor"],
        ["llama3"] = ["factor", "low_freq_factor", "high_freq_factor"],
        ["yarn"] = ["factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"],
        ["longrope"] = ["factor", "short_factor", "long_factor", "short_mscale", "long_mscale", "attention_factor"],
    };

    /// <summary>What the keys of LongRoPE begin with, within the original context and beyond it.</summary>
    private const string Short = "short", Long = "long";

    private readonly ConfigReader config;
    private readonly TensorCatalog tensors;
    private readonly ConfigReader? scaling;
    private readonly string section;
    private readonly string kind;
    private readonly double theta;
    private readonly double rotatedPart;
    private readonly RopePairing pairing;
    private readonly Dictionary<int, RopePlan> plans = [];

    /// <summary>Reads and checks the configuration; <see cref="ForHeadDim"/> makes the plans.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="tensors">The tensors.</param>
    /// <param name="usual">The pairing where <c>rope_pairing</c> says none.</param>
    /// <param name="usualTheta">θ where <c>rope_theta</c> is absent.</param>
    public RopeReader(ConfigReader config, TensorCatalog tensors, RopePairing usual = RopePairing.Halves, double usualTheta = 10000)
    {
        this.config = config;
        this.tensors = tensors;
        section = config.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
        scaling = config.Section(section);
        ConfigReader thetaHolder = scaling is not null && scaling.Has("rope_theta") ? scaling : config;
        theta = thetaHolder.Positive("rope_theta", usualTheta);
        ConfigReader partHolder = scaling is not null && scaling.Has("partial_rotary_factor") ? scaling : config;
        rotatedPart = partHolder.Positive("partial_rotary_factor", 1);
        kind = ReadKind();
        ContextLength = ReadContextLength();
        pairing = config.Text("rope_pairing", null) switch
        {
            "halves" => RopePairing.Halves,
            "adjacent" => RopePairing.Adjacent,
            { } other => throw config.Error("rope_pairing", $"expected 'halves' or 'adjacent'; found '{other}'"),
            null => usual,
        };
    }

    /// <summary>The longest sequence for which the frequencies are right.</summary>
    public int ContextLength { get; }

    /// <summary>The longest sequence for which those of <see cref="RopePlan.Long"/> are right; null where there are none.</summary>
    public int? LongContextLength => kind == "longrope" && config.Count("max_position_embeddings") is var context && context > ContextLength ? context : null;

    /// <summary>
    /// YaRN's second factor, on the scores of DeepSeek's attention: (0.1·<c>mscale_all_dim</c>·ln(factor) + 1)², 1 where the key is absent
    /// (<c>modeling_deepseek.py</c>).
    /// </summary>
    public double ScoreFactor
    {
        get
        {
            double multiplier = kind == "yarn" ? scaling!.Number("mscale_all_dim", 0) : 0;
            double magnitude = multiplier == 0 ? 1 : RopeFrequencies.YarnMagnitude(YarnFactor(), multiplier);
            return magnitude * magnitude;
        }
    }

    /// <summary>The rotation for heads of this size; layers with equal heads share one plan.</summary>
    public RopePlan ForHeadDim(int headDim)
    {
        if (!plans.TryGetValue(headDim, out RopePlan? plan))
        {
            plans[headDim] = plan = Make(headDim);
        }
        return plan;
    }

    private RopePlan Make(int headDim)
    {
        // The tolerance undoes the rounding of a factor that was made by dividing two integers.
        double rotated = Math.Floor(headDim * rotatedPart + 1e-4);
        if (rotated < 2 || rotated > headDim || rotated % 2 != 0)
        {
            throw config.Error(
                "partial_rotary_factor", $"expected an even number of rotated elements of a head of {headDim}; found {rotated}");
        }
        if (kind == "longrope")
        {
            // The factors for longer sequences are checked wherever they are, and needed only where sequences may be longer.
            RopePlan? extended = LongContextLength is not null || config.Has(FactorsTensor(Long)) ? LongRope(Long, (int)rotated) : null;
            return LongRope(Short, (int)rotated) with { Long = LongContextLength is null ? null : extended };
        }
        double[] frequencies = RopeFrequencies.Plain(theta, (int)rotated);
        float magnitude = Scale(frequencies);
        DivideByFactors(frequencies);
        return Plan(frequencies, magnitude);
    }

    private RopePlan Plan(double[] frequencies, float magnitude) => frequencies.All(double.IsFinite) && float.IsFinite(magnitude)
        ? new RopePlan(pairing, ImmutableArray.Create(frequencies), magnitude)
        : throw config.Error(section, "the frequencies are not finite");

    private string ReadKind()
    {
        if (scaling is null)
        {
            return "default";
        }
        string found = scaling.Text("rope_type", null) ?? scaling.Text("type", null) ?? "default";
        if (!KeysOfScaling.TryGetValue(found, out string[]? keys))
        {
            throw config.Error(section, $"the scaling '{found}' is not supported; known: {string.Join(", ", KeysOfScaling.Keys)}");
        }
        string? unknown = scaling.Keys.FirstOrDefault(key => scaling.Has(key) && !PlainKeys.Contains(key) && !keys.Contains(key));
        return unknown is null ? found : throw config.Error($"{section}.{unknown}", $"the key is not known for the scaling '{found}'");
    }

    private int ReadContextLength()
    {
        int context = config.Count("max_position_embeddings");
        return kind switch
        {
            // Past the context it was trained for, this rule's frequencies depend on the length reached, while keys are cached rotated.
            // The other rule likewise takes other factors for sequences that are longer: they are another plan (RopePlan.Long).
            "dynamic" or "longrope" => Math.Min(context, OriginalContext() ?? context),
            // Models are published with either the original or the extended length under this key.
            "yarn" => (int)Math.Clamp(Math.Round((OriginalContext() ?? context) * YarnFactor()), context, ConfigReader.LargestCount),
            _ => context,
        };
    }

    private float Scale(double[] frequencies)
    {
        switch (kind)
        {
            case "linear":
                RopeFrequencies.ScaleLinearly(frequencies, scaling!.Positive("factor"));
                return 1;
            case "llama3":
                ScaleLlama3(frequencies);
                return 1;
            case "yarn":
                return ScaleYarn(frequencies);
            default:
                return 1;
        }
    }

    private void ScaleLlama3(double[] frequencies)
    {
        double low = scaling!.Positive("low_freq_factor");
        double high = scaling.Positive("high_freq_factor");
        if (high <= low)
        {
            throw config.Error($"{section}.high_freq_factor", $"expected more than low_freq_factor, {low}; found {high}");
        }
        int original = OriginalContext() ?? throw config.Error($"{section}.original_max_position_embeddings", "the key is missing");
        RopeFrequencies.ScaleLlama3(frequencies, scaling.Positive("factor"), low, high, original);
    }

    private float ScaleYarn(double[] frequencies)
    {
        double factor = YarnFactor();
        double fast = scaling!.Positive("beta_fast", 32);
        double slow = scaling.Positive("beta_slow", 1);
        if (theta <= 1 || fast < slow)
        {
            throw config.Error(
                section, $"expected rope_theta above 1 and beta_fast of at least beta_slow; found {theta}, {fast} and {slow}");
        }
        RopeFrequencies.ScaleYarn(
            frequencies, theta, factor, fast, slow, OriginalContext() ?? config.Count("max_position_embeddings"),
            scaling.Flag("truncate", true));
        double multiplier = scaling.Number("mscale", 0);
        double multiplierOfAll = scaling.Number("mscale_all_dim", 0);
        double magnitude = multiplier != 0 && multiplierOfAll != 0
            ? RopeFrequencies.YarnMagnitude(factor, multiplier) / RopeFrequencies.YarnMagnitude(factor, multiplierOfAll)
            : RopeFrequencies.YarnMagnitude(factor);
        return (float)scaling.Positive("attention_factor", magnitude);
    }

    /// <summary>
    /// LongRoPE (Ding et al. 2024): a divisor per pair, other ones within the original context than beyond it, and a magnitude that is given (PhiMoE's
    /// <c>short_mscale</c> and <c>long_mscale</c>) or follows from how far the model was extended (transformers, <c>_compute_longrope_parameters</c>).
    /// </summary>
    private RopePlan LongRope(string length, int dimensions)
    {
        double[] frequencies = RopeFrequencies.Plain(theta, dimensions);
        Divide(frequencies, Factors(length, frequencies.Length));
        DivideByFactors(frequencies);
        int context = config.Count("max_position_embeddings");
        int original = OriginalContext() ?? context;
        double factor = original < context ? (double)context / original : scaling!.Positive("factor", 1);
        double magnitude = factor <= 1 || original == 1 ? 1 : Math.Sqrt(1 + Math.Log(factor) / Math.Log(original));
        return Plan(frequencies, (float)scaling!.Positive(scaling.Alias($"{length}_mscale", "attention_factor"), magnitude));
    }

    private double[] Factors(string length, int pairs)
    {
        if (config.Text(FactorsTensor(length), null) is { } tensor)
        {
            return StoredFactors(tensor, pairs);
        }
        string key = $"{length}_factor";
        double[] factors = scaling!.Numbers(key) ?? throw config.Error($"{section}.{key}", "the key is missing");
        return factors.Length == pairs && factors.All(static factor => factor > 0)
            ? factors
            : throw config.Error(
                $"{section}.{key}", $"expected {pairs} numbers above zero, one per pair; found {ConfigReader.Show(scaling.Node(key))}");
    }

    private static string FactorsTensor(string length) => $"rope_{length}_factors_tensor";

    private double YarnFactor() => scaling!.Has("factor")
        ? scaling.Positive("factor")
        : (double)config.Count("max_position_embeddings")
            / (OriginalContext() ?? throw config.Error($"{section}.factor", "the key is missing"));

    private int? OriginalContext() =>
        scaling!.CountOrNull("original_max_position_embeddings") ?? config.CountOrNull("original_max_position_embeddings");

    private void DivideByFactors(double[] frequencies)
    {
        if (config.Text("rope_factors_tensor", null) is not { } name)
        {
            return;
        }
        if (kind is not ("default" or "linear"))
        {
            throw config.Error("rope_factors_tensor", $"the scaling '{kind}' and a table of factors cannot both apply");
        }
        Divide(frequencies, StoredFactors(name, frequencies.Length));
    }

    private double[] StoredFactors(string tensor, int pairs)
    {
        float[] factors = tensors.Values(tensor, pairs);
        int bad = Array.FindIndex(factors, static factor => !(factor > 0 && float.IsFinite(factor)));
        return bad < 0
            ? [.. factors]
            : throw new EngineException($"expected factors above zero; found {factors[bad]} at {bad}", config.File, tensor);
    }

    private static void Divide(double[] frequencies, double[] factors)
    {
        for (int pair = 0; pair < frequencies.Length; pair++)
        {
            frequencies[pair] /= factors[pair];
        }
    }
}
