using System.Runtime.InteropServices;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Cpu.Matmul.Kernels;
using Engine.Execution;
using Engine.Plans;
using Xunit;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>Weights and activations for the tests of matrix products.</summary>
internal static unsafe class MatmulData
{
    public static readonly DType[] Formats =
    [
        DType.F32, DType.F16, DType.BF16, DType.Q8_0, DType.Q4_0, DType.Q4_1, DType.Q5_0, DType.Q5_1, DType.Q4_K, DType.Q5_K, DType.Q6_K,
        DType.MXFP4, DType.Q2_K, DType.Q3_K, DType.IQ4_NL, DType.IQ4_XS, DType.IQ3_XXS, DType.IQ3_S, DType.IQ2_XXS, DType.IQ2_XS, DType.IQ2_S, DType.IQ1_S,
        DType.IQ1_M, DType.TQ1_0, DType.TQ2_0, DType.NVFP4, DType.Q1_0, DType.Q2_0,
    ];

    public static TheoryData<DType> AllFormats => [.. Formats];

    public static TheoryData<DType> BlockFormats => [.. Formats.Where(static format => format.Info().BlockElements > 1)];

    public static bool IsFloat(this DType format) => format.Info().BlockElements == 1;

    /// <summary>
    /// Bytes of random codes under random finite scales, of both signs, some zero and some subnormal. Codes include those that no encoder writes.
    /// </summary>
    public static byte[] RandomBytes(DType format, long elements, Random random)
    {
        DTypeInfo info = format.Info();
        var bytes = new byte[elements / info.BlockElements * info.BlockBytes];
        random.NextBytes(bytes);
        for (int block = 0; block < bytes.Length; block += info.BlockBytes)
        {
            Span<byte> span = bytes.AsSpan(block, info.BlockBytes);
            switch (format)
            {
                case DType.F32:
                    MemoryMarshal.Write(span, (random.NextSingle() - 0.5f) * MathF.Pow(2, random.Next(-6, 6)));
                    break;
                case DType.BF16:
                    MemoryMarshal.Write(span[..2], (ushort)(BitConverter.SingleToUInt32Bits(random.NextSingle() - 0.5f) >> 16));
                    break;
                case DType.F16:
                    MemoryMarshal.Write(span, RandomHalf(random));
                    break;
                case DType.MXFP4:
                    span[0] = (byte)(random.Next(8) == 0 ? random.Next(3) : random.Next(112, 127));
                    break;
                default:
                    foreach (int offset in ScaleOffsets(format))
                    {
                        WriteScale(format, span[offset..], RandomHalf(random));
                    }
                    break;
            }
        }
        return bytes;
    }

    /// <summary>Where a block has its float16.</summary>
    public static int[] ScaleOffsets(DType format) => format switch
    {
        DType.Q6_K => [208],
        DType.Q2_K => [80, 82],
        DType.Q3_K => [108],
        DType.TQ1_0 => [52],
        DType.TQ2_0 => [64],
        DType.IQ1_M => [48],
        DType.NVFP4 => [],
        DType.Q4_1 or DType.Q5_1 or DType.Q4_K or DType.Q5_K => [0, 2],
        _ => [0],
    };

    /// <summary>Writes a float16 of a block; IQ1_M has it in the top nibbles of four words.</summary>
    public static void WriteScale(DType format, Span<byte> place, ushort bits)
    {
        if (format != DType.IQ1_M)
        {
            MemoryMarshal.Write(place, bits);
            return;
        }
        for (int word = 0; word < 4; word++)
        {
            ref byte top = ref place[2 * word + 1];
            top = (byte)(top & 15 | (bits >> (4 * word) & 15) << 4);
        }
    }

    /// <summary>Sets the signed code of an element, or the bits of a float.</summary>
    public static void SetCode(DType format, Span<byte> bytes, int element, int code)
    {
        if (format.IsFloat())
        {
            MemoryMarshal.Cast<byte, ushort>(bytes)[element] = (ushort)code;
            return;
        }
        Span<byte> block = bytes[(element / 32 * format.Info().BlockBytes)..];
        if (format == DType.Q8_0)
        {
            block[2 + element % 32] = (byte)(sbyte)code;
            return;
        }
        ref byte both = ref block[2 + element % 16];
        both = element % 32 < 16 ? (byte)((both & 0xF0) | (code + 8)) : (byte)((both & 15) | ((code + 8) << 4));
    }

    /// <summary>Arbitrary values, one block in eight of zeros.</summary>
    public static float[] RandomInput(int count, Random random)
    {
        var input = new float[count];
        for (int i = 0; i < count; i++)
        {
            input[i] = i / 32 % 8 == 5 ? 0 : (random.NextSingle() - 0.5f) * (1 << (i / 32 % 5));
        }
        return input;
    }

    /// <summary>Values that 8 bits per block hold exactly: a power of two times integers up to 127, the largest of which is ±127.</summary>
    public static float[] ExactInput(int count, Random random)
    {
        var input = new float[count];
        for (int block = 0; block < count; block += 32)
        {
            float scale = MathF.Pow(2, random.Next(-12, 4));
            int length = Math.Min(32, count - block);
            for (int i = 0; i < length; i++)
            {
                input[block + i] = random.Next(-127, 128) * scale;
            }
            input[block + random.Next(length)] = (random.Next(2) == 0 ? 127 : -127) * scale;
        }
        return input;
    }

    public static float[] Multiply(PackedLinear linear, ThreadTeam team, float[] input, int tokens, float[]? addTo = null)
    {
        float[] output = addTo?.ToArray() ?? Enumerable.Repeat(float.NaN, tokens * linear.Plan.Outputs).ToArray();
        fixed (float* from = input, to = output)
        {
            linear.Multiply(team, from, tokens, to, addTo is not null);
        }
        return output;
    }

    public static PackedLinear Load(
        DType format, int inputs, int outputs, byte[] bytes, ThreadTeam team, ActivationPrecision activations = ActivationPrecision.Float32)
    {
        using var checkpoint = new MemoryCheckpoint();
        checkpoint.Add("w", format, [outputs, inputs], bytes);
        return PackedLinear.Load(new LinearPlan(inputs, [new LinearPart(outputs, new WeightRef("w"))]), checkpoint, team, activations);
    }

    public static void AssertBits(ReadOnlySpan<float> expected, ReadOnlySpan<float> actual, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int i = 0; i < expected.Length; i++)
        {
            if (BitConverter.SingleToInt32Bits(expected[i]) != BitConverter.SingleToInt32Bits(actual[i]))
            {
                Assert.Fail($"{what}: element {i} is {actual[i]:R}, not {expected[i]:R}");
            }
        }
    }

    public static void SkipUnlessSupported(MatmulInstructions instructions) =>
        Assert.SkipUnless(instructions.IsSupported(), $"this processor has no {instructions}");

    /// <summary>Finite: exponents up to 2⁻¹, down to subnormals and zero.</summary>
    private static ushort RandomHalf(Random random)
    {
        int exponent = random.Next(8) == 0 ? 0 : random.Next(5, 15);
        int mantissa = random.Next(16) == 0 ? 0 : random.Next(1024);
        return (ushort)((random.Next(2) << 15) | (exponent << 10) | mantissa);
    }
}
