using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Xunit;

namespace Engine.Tests.Checkpoints;

public sealed class CodecTests
{
    /// <summary>
    /// Error of llama.cpp's own quantizers (build b9888, <c>llama-quantize --pure</c>) on Gaussian weights, relative to their root mean
    /// square.
    /// </summary>
    public static TheoryData<DType, double> ReferenceErrors => new()
    {
        { DType.F32, 0 }, { DType.F16, 0.000208 }, { DType.BF16, 0.001657 }, { DType.Q8_0, 0.005317 }, { DType.Q4_0, 0.085428 },
        { DType.Q4_1, 0.078106 }, { DType.Q5_0, 0.042645 }, { DType.Q5_1, 0.037810 }, { DType.Q4_K, 0.071326 }, { DType.Q5_K, 0.036107 },
        { DType.Q6_K, 0.017725 },
        // These five by ggml's quantize functions (commit d99724f2).
        { DType.Q2_K, 0.296570 }, { DType.Q3_K, 0.150865 }, { DType.IQ4_NL, 0.076170 }, { DType.IQ4_XS, 0.076752 }, { DType.Q1_0, 0.600334 },
        // The least of three levels (Max 1960, table I); ggml takes the largest weight for the scale, and has 0.81.
        { DType.TQ2_0, 0.4361 },
    };

    public static TheoryData<DType> Writable => [.. ReferenceErrors.Select(static row => row.Data.Item1)];

    [Theory]
    [MemberData(nameof(ReferenceErrors))]
    public void Encodes_about_as_well_as_the_reference(DType dtype, double reference)
    {
        int seed = Environment.TickCount;
        float[] values = Gaussian(new Random(seed), 256 * 2048, 0.03f), decoded = RoundTrip(dtype, values);
        double error = 0, power = 0;
        for (int i = 0; i < values.Length; i++)
        {
            error += Math.Pow((double)values[i] - decoded[i], 2);
            power += Math.Pow(values[i], 2);
        }
        double relative = Math.Sqrt(error / power);
        Assert.True(relative <= 1.02 * reference, $"seed {seed}: {dtype} has error {relative:F6}, the reference {reference}");
        Assert.True(reference == 0 || relative > 0.9 * reference, $"seed {seed}: {dtype} has error {relative:F6}, too good for its bits");
    }

    [Theory]
    [MemberData(nameof(Writable))]
    public void Encoding_what_was_decoded_loses_almost_nothing(DType dtype)
    {
        int seed = Environment.TickCount;
        float[] once = RoundTrip(dtype, Gaussian(new Random(seed), 256 * 64, 1f)), twice = RoundTrip(dtype, once);
        double error = 0, power = 0;
        for (int i = 0; i < once.Length; i++)
        {
            error += Math.Pow((double)once[i] - twice[i], 2);
            power += Math.Pow(once[i], 2);
        }
        Assert.True(Math.Sqrt(error / power) < 0.03, $"seed {seed}: {dtype} drifts by {Math.Sqrt(error / power):F4}");
    }

    [Theory]
    [MemberData(nameof(Writable))]
    public void Awkward_blocks_survive(DType dtype)
    {
        Random random = Seed.Fresh();
        float[][] blocks =
        [
            new float[256],
            Enumerable.Repeat(1f, 256).ToArray(),
            Enumerable.Repeat(-1f, 256).ToArray(),
            [.. Enumerable.Range(0, 256).Select(static i => i == 77 ? -3f : 0f)],
            [.. Enumerable.Range(0, 256).Select(static i => i / 100f)],
            [.. Enumerable.Range(0, 256).Select(static i => -i / 100f)],
            [.. Enumerable.Range(0, 256).Select(static i => i < 128 ? 1e-12f : 1e-3f)],
            Gaussian(random, 256, 1e-20f),
            Gaussian(random, 256, 1e-38f),
            Gaussian(random, 256, 1e-42f),
            Gaussian(random, 256, 1000f),
        ];
        foreach (float[] block in blocks)
        {
            float[] decoded = RoundTrip(dtype, block);
            float largest = block.Max(MathF.Abs);
            for (int i = 0; i < block.Length; i++)
            {
                // A code is at most half a step of the coarsest format away, and tiny scales may vanish in F16; below 3 bits outliers are cut off.
                float allowed = (dtype.Info().BlockBytes * 8 / dtype.Info().BlockElements < 3 ? 1f : 0.13f * 2) * largest + 6e-5f;
                Assert.True(MathF.Abs(decoded[i] - block[i]) <= allowed, $"{dtype}: {block[i]} became {decoded[i]} beside {largest}");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Writable))]
    public void Refuses_what_is_not_finite(DType dtype)
    {
        foreach (float bad in new[] { float.NaN, float.PositiveInfinity, float.NegativeInfinity })
        {
            var values = new float[256];
            values[131] = bad;
            EngineException exception = Assert.Throws<EngineException>(() => RoundTrip(dtype, values));
            Assert.Contains("131", exception.Message, StringComparison.Ordinal);
        }
        if (dtype is not (DType.F32 or DType.BF16))
        {
            float[] huge = [.. Enumerable.Range(0, 256).Select(static i => i % 2 == 0 ? 1e30f : -1e30f)];
            Assert.Throws<EngineException>(() => RoundTrip(dtype, huge));
        }
    }

    [Fact]
    public void K_quants_refuse_rows_that_are_not_whole_blocks()
    {
        EngineException exception = Assert.Throws<EngineException>(() => DType.Q4_K.RowBytes(896));
        Assert.Contains("256", exception.Message, StringComparison.Ordinal);
        Assert.Equal(144 * 4, DType.Q4_K.RowBytes(1024));
        Assert.Throws<ArgumentException>(() => Codec.For(DType.Q4_K).Decode(new byte[144], new float[255]));
    }

    [Fact]
    public void The_table_is_in_the_order_of_the_enumeration()
    {
        Assert.Equal(Enum.GetValues<DType>(), DTypes.All.Select(static info => info.DType));
        foreach (DTypeInfo info in DTypes.All)
        {
            Assert.Equal(info.DType, Codec.For(info.DType).DType);
            Assert.True(DTypes.TryParse(info.Name.ToLowerInvariant(), out DType parsed) && parsed == info.DType);
        }
    }

    [Fact]
    public void MXFP4_codes_stand_for_the_numbers_of_the_specification()
    {
        float[] numbers = [0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0f, -0.5f, -1, -1.5f, -2, -3, -4, -6];
        var values = new float[32];
        foreach (byte exponent in new byte[] { 0, 1, 2, 100, 127, 130, 251 })
        {
            // Byte j holds elements j and j + 16.
            Codec.For(DType.MXFP4).Decode([exponent, .. Enumerable.Range(0, 16).Select(static j => (byte)(j | (15 - j) << 4))], values);
            Assert.Equal([.. numbers.Concat(numbers.Reverse()).Select(number => MathF.ScaleB(number, exponent - 127))], values);
        }
        Assert.Equal(32, Codec.For(DType.MXFP4).IndexOfNonFinite([.. new byte[17], 0xFF, .. new byte[16]]));
        Assert.Equal(-1, Codec.For(DType.MXFP4).IndexOfNonFinite([0xFE, .. new byte[16]]));
    }

    [Fact]
    public void MXFP4_takes_the_nearest_number_under_the_scale_of_the_largest()
    {
        // The largest is 7 = 1.75 · 2²: the scale is 2² / 2² = 1, and 7 lies above the last code. Ties go to the even code.
        float[] values = [7, 5, -5, 0.25f, -0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 0.26f, -2.4f, -6.9f, .. new float[20]];
        float[] expected = [6, 4, -4, 0, -1, 1, 2, 2, 4, 0.5f, -2, -6, .. new float[20]];
        Assert.Equal(expected, RoundTrip(DType.MXFP4, values));
        float[] scaled = [.. values.Select(static value => MathF.ScaleB(value, -30))];
        Assert.Equal([.. expected.Select(static value => MathF.ScaleB(value, -30))], RoundTrip(DType.MXFP4, scaled));
        Assert.Equal(new float[32], RoundTrip(DType.MXFP4, new float[32]));
        float[] noise = RoundTrip(DType.MXFP4, Gaussian(Seed.Fresh(), 4096, 1));
        Assert.Equal(noise, RoundTrip(DType.MXFP4, noise));
    }

    [Theory]
    [InlineData(DType.IQ3_XXS)]
    [InlineData(DType.IQ3_S)]
    [InlineData(DType.IQ2_XXS)]
    [InlineData(DType.IQ2_XS)]
    [InlineData(DType.IQ2_S)]
    [InlineData(DType.IQ1_S)]
    [InlineData(DType.IQ1_M)]
    [InlineData(DType.TQ1_0)]
    [InlineData(DType.NVFP4)]
    [InlineData(DType.Q2_0)]
    public void Formats_that_are_only_read_say_so(DType dtype)
    {
        EngineException exception = Assert.Throws<EngineException>(() => RoundTrip(dtype, new float[256]));
        Assert.Equal($"writing {dtype} is not supported yet", exception.Message);
    }

    [Fact]
    public void Ternary_weights_come_back_as_they_were()
    {
        Random random = Seed.Fresh();
        float[] weights = [.. Enumerable.Range(0, 1024).Select(i => (random.Next(3) - 1) * (float)(Half)(0.01f * (i / 256 + 1)))];
        Assert.Equal(weights, RoundTrip(DType.TQ2_0, weights));
    }

    internal static float[] Gaussian(Random random, int count, float deviation)
    {
        var values = new float[count];
        for (int i = 0; i < count; i++)
        {
            double radius = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble()));
            values[i] = (float)(deviation * radius * Math.Cos(2 * Math.PI * random.NextDouble()));
        }
        return values;
    }

    private static float[] RoundTrip(DType dtype, float[] values)
    {
        var bytes = new byte[dtype.RowBytes(values.Length)];
        var decoded = new float[values.Length];
        Codec.For(dtype).Encode(values, bytes);
        Codec.For(dtype).Decode(bytes, decoded);
        Assert.True(Codec.For(dtype).IndexOfNonFinite(bytes) < 0);
        return decoded;
    }
}
