using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>Scales of super-blocks, unpacked on vectors of any width.</summary>
public sealed unsafe class ScalesTests
{
    [Fact]
    public void SuperBlockScalesAndMinimaAreThoseOfTheFile()
    {
        int seed = Random.Shared.Next();
        (byte[] blocks, byte[] unit) = Pack<SuperBlockScalesAndMinima>(seed, 12 + 4, 0, 2);
        float[] unpacked = Unpack(unit, &SuperBlockScalesAndMinima.UnpackPortable);
        for (int row = 0; row < Panel.Rows; row++)
        {
            ReadOnlySpan<byte> block = blocks.AsSpan(row * 16, 16), packed = block[4..];
            double d = (double)BitConverter.ToHalf(block), minimum = (double)BitConverter.ToHalf(block[2..]);
            for (int group = 0; group < 8; group++)
            {
                // The 6-bit fields of the GGUF format: the first four whole, the other four in nibbles and upper pairs.
                int s = group < 4 ? packed[group] & 63 : (packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4);
                int m = group < 4 ? packed[group + 4] & 63 : (packed[group + 4] >> 4) | (packed[group] >> 6 << 4);
                Assert.True((float)(d * s) == unpacked[group * 2 * Panel.Rows + row], $"seed {seed}, row {row}, group {group}");
                Assert.True((float)(-minimum * m) == unpacked[(group * 2 + 1) * Panel.Rows + row], $"seed {seed}, row {row}, group {group}");
            }
        }
    }

    [Fact]
    public void SuperBlockHalfScalesAreThoseOfTheFile()
    {
        int seed = Random.Shared.Next();
        (byte[] blocks, byte[] unit) = Pack<SuperBlockHalfScales>(seed, 210, 208);
        float[] unpacked = Unpack(unit, &SuperBlockHalfScales.Unpack);
        for (int row = 0; row < Panel.Rows; row++)
        {
            for (int group = 0; group < 16; group++)
            {
                double expected = (double)BitConverter.ToHalf(blocks.AsSpan(row * 210 + 208)) * (sbyte)blocks[row * 210 + 192 + group];
                Assert.True((float)expected == unpacked[group * Panel.Rows + row], $"seed {seed}, row {row}, group {group}");
            }
        }
    }

    [Fact]
    public void HalfScalesAndMinimaAreThoseOfTheFile()
    {
        int seed = Random.Shared.Next();
        (byte[] blocks, byte[] unit) = Pack<SuperBlockHalfScalesAndMinima>(seed, 84, 80, 82);
        float[] unpacked = Unpack(unit, &SuperBlockHalfScalesAndMinima.Unpack, 4);
        for (int row = 0; row < Panel.Rows; row++)
        {
            ReadOnlySpan<byte> block = blocks.AsSpan(row * 84, 84);
            double d = (double)BitConverter.ToHalf(block[80..]), minimum = (double)BitConverter.ToHalf(block[82..]);
            for (int group = 0; group < 16; group++)
            {
                int vector = group / 2 * 4 + group % 2;
                Assert.True((float)(d * (block[group] & 15)) == unpacked[vector * Panel.Rows + row], $"seed {seed}, row {row}, group {group}");
                Assert.True((float)(-minimum * (block[group] >> 4)) == unpacked[(vector + 2) * Panel.Rows + row], $"seed {seed}, row {row}, group {group}");
            }
        }
    }

    [Fact]
    public void EverySmallFloatIsHalfOfItsNumber()
    {
        for (int first = 0; first < 256; first += HalfBlockSmallFloats.UnitBytes)
        {
            byte[] unit = [.. Enumerable.Range(first, HalfBlockSmallFloats.UnitBytes).Select(static code => (byte)code)];
            float[] unpacked = Unpack(unit, &HalfBlockSmallFloats.Unpack);
            var portable = new float[Panel.Rows];
            fixed (byte* codes = unit)
            fixed (float* target = portable)
            {
                HalfBlockSmallFloats.UnpackPortable(codes, target);
            }
            MatmulData.AssertBits(portable, unpacked.AsSpan(0, Panel.Rows), $"from {first}");
            for (int i = 0; i < unit.Length; i++)
            {
                // E4M3 without its sign; only 0x7F is no number.
                int exponent = unit[i] >> 3 & 15, mantissa = unit[i] & 7;
                double number = unit[i] == 0x7F ? 0 : exponent == 0 ? mantissa / 512.0 : (8 + mantissa) / 8.0 * Math.Pow(2, exponent - 7);
                Assert.Equal(number / 2, unpacked[i]);
            }
        }
    }

    [Fact]
    public void WiderVectorsGiveTheSameScales()
    {
        Assert.SkipUnless(Avx512F.IsSupported, "this processor has no AVX-512");
        for (int repeat = 0; repeat < 100; repeat++)
        {
            int seed = Random.Shared.Next();
            byte[] unit = Pack<SuperBlockScalesAndMinima>(seed, 16, 0, 2).Unit;
            MatmulData.AssertBits(
                Unpack(unit, &SuperBlockScalesAndMinima.UnpackPortable), Unpack(unit, &SuperBlockScalesAndMinima.UnpackAvx512), $"seed {seed}");
            var random = new Random(seed);
            var bytes = new byte[Panel.Rows];
            var factors = new float[Panel.Rows];
            random.NextBytes(bytes);
            Fill(random, factors);
            float[] wide = new float[Panel.Rows], portable = new float[Panel.Rows];
            fixed (byte* integers = bytes)
            fixed (float* factor = factors, first = wide, second = portable)
            {
                ScaledRows.Signed((sbyte*)integers, factor, first);
                ScaledRows.SignedPortable((sbyte*)integers, factor, second);
                MatmulData.AssertBits(portable, wide, $"seed {seed}, signed");
                foreach ((int shift, bool odd) in new[] { (0, false), (4, false), (0, true), (4, true) })
                {
                    ScaledRows.Nibbles(integers, shift, odd, factor, first);
                    ScaledRows.NibblesPortable(integers, shift, odd, factor, second);
                    MatmulData.AssertBits(portable, wide, $"seed {seed}, nibbles above {shift}{(odd ? ", odd" : "")}");
                    for (int row = 0; row < Panel.Rows; row++)
                    {
                        int nibble = bytes[row] >> shift & 15;
                        Assert.True(factors[row] * (odd ? 2 * nibble + 1 : nibble) == wide[row], $"seed {seed}, row {row}");
                    }
                }
            }
        }
    }

    private static void Fill(Random random, float[] values)
    {
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = (random.NextSingle() - 0.5f) * MathF.Pow(2, random.Next(-20, 3));
        }
    }

    /// <summary>A random block per row, with finite float16 at the offsets, and the unit they are packed to.</summary>
    private static (byte[] Blocks, byte[] Unit) Pack<TScales>(int seed, int blockBytes, params int[] halves)
        where TScales : IFileScales
    {
        var random = new Random(seed);
        var blocks = new byte[Panel.Rows * blockBytes];
        var unit = new byte[TScales.UnitBytes];
        random.NextBytes(blocks);
        fixed (byte* source = blocks, target = unit)
        {
            for (int row = 0; row < Panel.Rows; row++)
            {
                foreach (int offset in halves)
                {
                    *(Half*)(source + row * blockBytes + offset) = (Half)((random.NextSingle() - 0.5f) * MathF.Pow(2, random.Next(-20, 3)));
                }
                TScales.Pack(source + row * blockBytes, target, row);
            }
        }
        return (blocks, unit);
    }

    /// <summary>[8 blocks, vectors, 16].</summary>
    private static float[] Unpack(byte[] unit, delegate*<byte*, float*, int, int, void> unpack, int vectors = 2)
    {
        var scales = new float[8 * vectors * Panel.Rows];
        fixed (byte* source = unit)
        fixed (float* target = scales)
        {
            unpack(source, target, Panel.Rows, vectors * Panel.Rows);
        }
        return scales;
    }
}
