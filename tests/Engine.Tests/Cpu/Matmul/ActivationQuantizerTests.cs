using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

public sealed unsafe class ActivationQuantizerTests
{
    [Fact]
    public void CodesAreTheNearestAndSumsAreTheirs()
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        for (int repeat = 0; repeat < 500; repeat++)
        {
            float[] values = Values(random, repeat);
            int tokens = random.Next(1, 9), token = random.Next(tokens);
            byte[] record = Quantize(values, tokens, token, &ActivationQuantizer.QuantizePortable);
            float step = BitConverter.ToSingle(record, ActivationLayout.Scale * tokens + 4 * token);
            int[] sums = [0, 0];
            for (int i = 0; i < 32; i++)
            {
                int code = (sbyte)record[(i / 4 * tokens + token) * 4 + i % 4];
                Assert.InRange(code, -127, 127);
                // The nearest code, but for the three roundings that lead from a value to code + ½, at most 127.5.
                double half = 0.5 + 127.5 * 3 * Math.Pow(2, -24);
                Assert.True(Math.Abs(values[i] - (double)code * step) <= step * half + 1e-30, $"seed {seed}: {values[i]} became {code} · {step}");
                sums[i / 16] += code;
            }
            Assert.Equal(-sums[0], BitConverter.ToInt32(record, ActivationLayout.NegativeHalfSums * tokens + 4 * token));
            Assert.Equal(-sums[1], BitConverter.ToInt32(record, (ActivationLayout.NegativeHalfSums + 4) * tokens + 4 * token));
            Assert.Equal(-sums[0] - sums[1], BitConverter.ToInt32(record, ActivationLayout.NegativeSum * tokens + 4 * token));
            Assert.Equal(step * (sums[0] + sums[1]), BitConverter.ToSingle(record, ActivationLayout.ScaledSum * tokens + 4 * token));
        }
    }

    [Fact]
    public void WiderVectorsGiveTheSameRecord()
    {
        Assert.SkipUnless(Avx512BW.VL.IsSupported, "this processor has no AVX-512");
        Random random = Seed.Fresh();
        for (int repeat = 0; repeat < 500; repeat++)
        {
            float[] values = Values(random, repeat);
            int tokens = random.Next(1, 9), token = random.Next(tokens);
            Assert.Equal(
                Quantize(values, tokens, token, &ActivationQuantizer.QuantizePortable),
                Quantize(values, tokens, token, &ActivationQuantizer.QuantizeAvx512));
        }
    }

    private static float[] Values(Random random, int repeat)
    {
        float[] values = [.. Enumerable.Range(0, 32).Select(_ => (random.NextSingle() - 0.5f) * MathF.Pow(2, random.Next(-20, 20)))];
        switch (repeat % 8)
        {
            case 5:
                Array.Clear(values);
                break;
            case 6:
                values = [.. values.Select(static value => value * 1e-38f)]; // subnormal
                break;
            case 7:
                values = [.. values.Select(static value => MathF.Round(value) + 0.5f)]; // ties
                values[3] = 127;
                break;
        }
        return values;
    }

    private static byte[] Quantize(float[] values, int tokens, int token, delegate*<float*, byte*, int, int, void> quantize)
    {
        var record = new byte[ActivationLayout.BytesPerToken * tokens];
        fixed (float* from = values)
        fixed (byte* to = record)
        {
            quantize(from, to, tokens, token);
        }
        return record;
    }
}
