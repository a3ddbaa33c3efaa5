using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>8-bit floats and the scales that are some.</summary>
public sealed unsafe class SmallFloatTests
{
    [Fact]
    public void Every_code_widens_to_its_number()
    {
        byte* codes = stackalloc byte[8];
        foreach (CodeNumbers numbers in new[] { CodeNumbers.E4M3, CodeNumbers.E5M2 })
        {
            for (int code = 0; code < 256; code++)
            {
                float expected = CodeTables.Of(numbers)[code];
                new Span<byte>(codes, 8).Fill((byte)code);
                float widened = (numbers == CodeNumbers.E4M3 ? SmallFloats.WidenE4M3(codes) : SmallFloats.WidenE5M2(codes))[code % 8];
                Assert.True(
                    !float.IsFinite(expected) || BitConverter.SingleToInt32Bits(expected) == BitConverter.SingleToInt32Bits(widened),
                    $"{numbers} {code}: {widened}, not {expected}");
            }
        }
    }

    [Fact]
    public void Wider_vectors_widen_alike()
    {
        Assert.SkipUnless(Avx512F.IsSupported, "this processor has no AVX-512");
        byte* codes = stackalloc byte[16];
        for (int code = 0; code < 256; code++)
        {
            new Span<byte>(codes, 16).Fill((byte)code);
            Assert.Equal(SmallFloats.WidenE4M3(codes), SmallFloats.WidenE4M3Avx512(codes).GetUpper());
        }
    }

    [Fact]
    public void The_nearest_code_is_found()
    {
        Random random = Seed.Fresh();
        float[] numbers = [.. CodeTables.Of(CodeNumbers.E4M3).Where(float.IsFinite)];
        foreach (float number in numbers)
        {
            Assert.Equal(number, CodeTables.Of(CodeNumbers.E4M3)[SmallFloats.Nearest(number)]);
        }
        for (int i = 0; i < 1000; i++)
        {
            float value = (random.NextSingle() - 0.5f) * MathF.ScaleB(1, random.Next(-14, 11));
            float nearest = CodeTables.Of(CodeNumbers.E4M3)[SmallFloats.Nearest(value)];
            Assert.Equal(numbers.Min(number => Math.Abs(number - value)), Math.Abs(nearest - value));
        }
    }

    /// <summary>Whether a file multiplies its 8-bit scales with a number or divides them by one.</summary>
    [Fact]
    public void The_factor_of_scales_is_found_and_only_where_there_is_one()
    {
        Random random = Seed.Fresh();
        const float Tolerance = 1f / (1 << 22);
        for (int repeat = 0; repeat < 50; repeat++)
        {
            float factor = (random.NextSingle() + 0.1f) * MathF.ScaleB(1, random.Next(-20, 20));
            float[] numbers = [.. Enumerable.Range(0, 30).Select(_ => CodeTables.Of(CodeNumbers.E4M3)[random.Next(0x7F)])];
            float[] products = [.. numbers.Select(number => number * factor)], quotients = [.. numbers.Select(number => number / factor)];
            foreach (float[] scales in new[] { products, quotients })
            {
                float found = SmallFloats.FindFactor(scales, Tolerance)!.Value;
                foreach (float scale in scales)
                {
                    float held = CodeTables.Of(CodeNumbers.E4M3)[SmallFloats.Nearest(scale / found)] * found;
                    Assert.True(Math.Abs(held - scale) <= 2 * Tolerance * scale, $"{held}, not {scale}");
                }
                Assert.Null(SmallFloats.FindFactor([.. scales, scales.Max() * 0.987654f], Tolerance));
            }
        }
        Assert.NotNull(SmallFloats.FindFactor([0], Tolerance));
        Assert.Null(SmallFloats.FindFactor([float.MaxValue, float.Epsilon], Tolerance));
    }

    [Fact]
    public void Powers_of_two_are_held_as_their_exponents()
    {
        byte* unit = stackalloc byte[BlockPowers.UnitBytes];
        float* scales = stackalloc float[Panel.Rows];
        new Span<byte>(unit, BlockPowers.UnitBytes).Clear();
        for (int exponent = -128; exponent <= 126; exponent++)
        {
            float scale = MathF.ScaleB(1, exponent);
            Assert.True(BlockPowers.Holds(scale));
            BlockPowers.Store(unit, 0, 5, scale, 0, 1);
            BlockPowers.Unpack(unit, scales, Panel.Rows, Panel.Rows);
            Assert.Equal(scale, scales[5]);
        }
        Assert.All(new[] { 0f, -1f, 3f, MathF.ScaleB(1, -129), MathF.ScaleB(1, 127), float.NaN, float.PositiveInfinity }, static scale => Assert.False(BlockPowers.Holds(scale)));
    }
}
