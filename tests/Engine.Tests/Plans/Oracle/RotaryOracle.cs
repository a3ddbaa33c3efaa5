using System.Text.Json.Nodes;

namespace Engine.Tests.Plans.Oracle;

/// <summary>
/// Rotary embeddings as Hugging Face's modeling_rope_utils defines them, in doubles: inv_freq and attention_scaling, then rotate_half.
/// </summary>
internal sealed class RotaryOracle
{
    private readonly int dim;

    /// <param name="config">The model's configuration.</param>
    /// <param name="headDim">Elements that are rotated.</param>
    /// <param name="length">Tokens of the sequence, all of which go through the model at once.</param>
    public RotaryOracle(JsonObject config, int headDim, int length = 0)
    {
        var scaling = (config["rope_parameters"] ?? config["rope_scaling"]) as JsonObject;
        double theta = Number(scaling, "rope_theta") ?? Number(config, "rope_theta") ?? 10000;
        dim = headDim;
        double maxPositions = Number(config, "max_position_embeddings")!.Value;
        InvFreq = [.. Enumerable.Range(0, dim / 2).Select(i => 1 / Math.Pow(theta, 2.0 * i / dim))];
        switch ((string?)(scaling?["rope_type"] ?? scaling?["type"]) ?? "default")
        {
            case "default":
                break;
            case "linear":
                InvFreq = [.. InvFreq.Select(f => f / Number(scaling, "factor")!.Value)];
                break;
            case "dynamic": // seq_len = max(seq_len, max_position_embeddings) makes the base the plain one up to there
                double factor = Number(scaling, "factor")!.Value;
                double scaledBase = theta * Math.Pow(factor * maxPositions / maxPositions - (factor - 1), dim / (dim - 2.0));
                InvFreq = [.. Enumerable.Range(0, dim / 2).Select(i => 1 / Math.Pow(scaledBase, 2.0 * i / dim))];
                break;
            case "llama3":
                InvFreq = Llama3(InvFreq, scaling!);
                break;
            case "yarn":
                Yarn(scaling!, theta);
                break;
            case "longrope": // PhiMoE's
                string table = length > Number(scaling, "original_max_position_embeddings") ? "long" : "short";
                InvFreq = [.. InvFreq.Select((f, i) => f / scaling![$"{table}_factor"]![i]!.GetValue<double>())];
                AttentionScaling = Number(scaling, $"{table}_mscale")!.Value;
                break;
            default:
                throw new NotSupportedException();
        }
    }

    public double[] InvFreq { get; private set; }

    public double AttentionScaling { get; private set; } = 1;

    /// <summary>q·cos + rotate_half(q)·sin, where emb = cat(freqs, freqs).</summary>
    public double[] Apply(double[] x, int position)
    {
        double[] result = new double[x.Length];
        for (int i = 0; i < dim; i++)
        {
            double angle = position * InvFreq[i % (dim / 2)];
            double rotatedHalf = i < dim / 2 ? -x[i + dim / 2] : x[i - dim / 2];
            result[i] = x[i] * Math.Cos(angle) * AttentionScaling + rotatedHalf * Math.Sin(angle) * AttentionScaling;
        }
        return result;
    }

    private static double[] Llama3(double[] invFreq, JsonObject scaling)
    {
        double factor = Number(scaling, "factor")!.Value, low = Number(scaling, "low_freq_factor")!.Value;
        double high = Number(scaling, "high_freq_factor")!.Value, old = Number(scaling, "original_max_position_embeddings")!.Value;
        return [.. invFreq.Select(f =>
        {
            double wavelength = 2 * Math.PI / f;
            if (wavelength < old / high)
            {
                return f;
            }
            if (wavelength > old / low)
            {
                return f / factor;
            }
            double smooth = (old / wavelength - low) / (high - low);
            return (1 - smooth) * f / factor + smooth * f;
        })];
    }

    private void Yarn(JsonObject scaling, double theta)
    {
        double factor = Number(scaling, "factor")!.Value, original = Number(scaling, "original_max_position_embeddings")!.Value;
        double? mscale = Number(scaling, "mscale"), mscaleAll = Number(scaling, "mscale_all_dim");
        AttentionScaling = Number(scaling, "attention_factor")
            ?? (mscale is not null && mscaleAll is not null
                ? Mscale(factor, mscale.Value) / Mscale(factor, mscaleAll.Value)
                : Mscale(factor, 1));
        bool truncate = scaling["truncate"]?.GetValue<bool>() ?? true;
        double low = Correction(Number(scaling, "beta_fast") ?? 32), high = Correction(Number(scaling, "beta_slow") ?? 1);
        if (truncate)
        {
            (low, high) = (Math.Floor(low), Math.Ceiling(high));
        }
        (low, high) = (Math.Max(low, 0), Math.Min(high, dim - 1));
        if (low == high)
        {
            high += 0.001;
        }
        InvFreq = [.. Enumerable.Range(0, dim / 2).Select(i =>
        {
            double positionFrequency = Math.Pow(theta, 2.0 * i / dim);
            double extrapolationFactor = 1 - Math.Min(1, Math.Max(0, (i - low) / (high - low)));
            return 1 / (factor * positionFrequency) * (1 - extrapolationFactor) + 1 / positionFrequency * extrapolationFactor;
        })];

        double Correction(double rotations) => dim * Math.Log(original / (rotations * 2 * Math.PI)) / (2 * Math.Log(theta));

        static double Mscale(double scale, double m) => scale <= 1 ? 1 : 0.1 * m * Math.Log(scale) + 1;
    }

    private static double? Number(JsonObject? holder, string key) => holder?[key] is { } node ? node.GetValue<double>() : null;
}
