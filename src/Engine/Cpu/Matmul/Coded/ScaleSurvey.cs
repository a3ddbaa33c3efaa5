using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Cpu.Matmul.Formats;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// What holds the scales and zero points of the wanted rows of a <see cref="CodedMatrix"/>. Read once before packing; the codes are not looked at.
/// </summary>
internal sealed class ScaleSurvey
{
    // NVFP4: as many magnitudes as S.EEEE.MMM has.
    private const int MostDistinct = 127;
    private const int RecentBits = 10;
    private const float FactorTolerance = 1f / (1 << 22);

    private HashSet<float>? magnitudes = [];

    // Scales seen lately, each at a place that its bits say: those of 8 bits are nearly always there, and teach nothing.
    private readonly float[] recent = new float[1 << RecentBits];

    /// <summary>Scales are held exactly once multiplied as <see cref="Of"/> was told.</summary>
    public bool Exactly { get; private set; } = true;

    /// <summary>All are top halves of binary32.</summary>
    public bool BFloat16 { get; private set; } = true;

    /// <summary>All are binary16.</summary>
    public bool Float16 { get; private set; } = true;

    /// <summary>All are powers of two that <see cref="BlockPowers"/> holds.</summary>
    public bool Powers { get; private set; } = true;

    /// <summary>Smallest and largest zero point.</summary>
    public (int Least, int Largest) Zeros { get; private set; }

    /// <summary>Reads scales and zero points.</summary>
    /// <param name="source">The matrix and which of its rows.</param>
    /// <param name="rows">How many of them.</param>
    /// <param name="multiplier">A power of two that scales are multiplied with before they are packed.</param>
    /// <exception cref="EngineException">A scale is NaN or infinite.</exception>
    public static ScaleSurvey Of(WeightRows source, int rows, float multiplier)
    {
        CodedMatrix coded = source.Tensor.Coded!;
        var survey = new ScaleSurvey();
        Array.Fill(survey.recent, float.NaN);
        var scales = new float[coded.Groups];
        var zeros = new int[coded.Groups];
        Array.Fill(zeros, coded.Zero ?? 0);
        int least = int.MaxValue, largest = int.MinValue;
        for (int row = 0; row < rows; row++)
        {
            coded.ReadScales(source.Row(row), scales, zeros);
            if (FiniteCheck.IndexOfNonFinite(scales) >= 0)
            {
                coded.RequireFinite(source.Row(row));
            }
            foreach (float scale in scales)
            {
                survey.Add(scale, multiplier);
            }
            if (row == 0 || coded.Zero is null)
            {
                least = Math.Min(least, zeros.Min());
                largest = Math.Max(largest, zeros.Max());
            }
        }
        survey.Zeros = rows == 0 ? default : (least, largest);
        return survey;
    }

    /// <summary>The factor of <see cref="SmallFloatScales"/>, null where they do not hold the scales.</summary>
    public float? SmallFloatFactor() => magnitudes is { Count: > 0 } found ? SmallFloats.FindFactor(found, FactorTolerance) : null;

    private void Add(float stored, float multiplier)
    {
        uint storedBits = BitConverter.SingleToUInt32Bits(stored);
        ref float known = ref recent[storedBits * 0x9E3779B1 >> (32 - RecentBits)];
        if (BitConverter.SingleToUInt32Bits(known) == storedBits)
        {
            return;
        }
        known = stored;
        float scale = stored * multiplier;
        Exactly = Exactly && scale / multiplier == stored;
        BFloat16 = BFloat16 && (BitConverter.SingleToUInt32Bits(scale) & 0xFFFF) == 0;
        Float16 = Float16 && (float)(Half)scale == scale;
        Powers = Powers && BlockPowers.Holds(scale);
        if (magnitudes is not null && magnitudes.Add(Math.Abs(scale)) && magnitudes.Count > MostDistinct)
        {
            magnitudes = null;
        }
    }
}
