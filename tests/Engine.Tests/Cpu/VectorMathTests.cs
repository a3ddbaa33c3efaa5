using System.Runtime.Intrinsics;
using Engine.Cpu;
using Engine.Cpu.Simd;
using Engine.Reference;
using Xunit;

namespace Engine.Tests.Cpu;

public sealed unsafe class VectorMathTests
{
    public static TheoryData<InstructionSet> Sets => InstructionSets.All;

    private enum Function
    {
        Exp,
        Silu,
        GeluTanh,
        Gelu,
        Sigmoid,
        Tanh,
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Exp_is_within_two_units_in_the_last_place(InstructionSet set)
    {
        InstructionSets.Require(set);
        int seed = Random.Shared.Next();
        float[] inputs = Inputs(seed, -104, 88.7f);
        float[] outputs = Apply(set, Function.Exp, inputs);
        for (int i = 0; i < inputs.Length; i++)
        {
            double expected = Math.Exp(inputs[i]);
            // A unit in the last place; below the normal range it no longer shrinks.
            double unit = Math.Max(MathF.BitIncrement((float)expected) - (float)expected, float.Epsilon);
            Assert.True(Math.Abs(outputs[i] - expected) <= 2 * unit, $"seed {seed}: exp({inputs[i]:R}) = {outputs[i]:R}, expected {expected:R}");
        }
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Exp_is_right_at_the_ends(InstructionSet set)
    {
        InstructionSets.Require(set);
        float[] inputs = [0f, -0f, float.NegativeInfinity, float.PositiveInfinity, float.NaN, -200f, 200f, float.MinValue, float.MaxValue];
        float[] expected = [1f, 1f, 0f, float.PositiveInfinity, float.NaN, 0f, float.PositiveInfinity, 0f, float.PositiveInfinity];
        Assert.Equal(expected, Apply(set, Function.Exp, inputs));
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Activations_keep_their_relative_accuracy_in_the_tail(InstructionSet set)
    {
        InstructionSets.Require(set);
        int seed = Random.Shared.Next();
        float[] inputs = Inputs(seed, -12, 12);
        foreach ((Function function, Func<double, double> definition) in new (Function, Func<double, double>)[]
        {
            (Function.Silu, SpecialFunctions.Silu),
            (Function.GeluTanh, SpecialFunctions.GeluTanh),
            (Function.Gelu, SpecialFunctions.Gelu),
        })
        {
            float[] outputs = Apply(set, function, inputs);
            for (int i = 0; i < inputs.Length; i++)
            {
                double expected = definition(inputs[i]);
                // The absolute error of the exponential's argument is the result's relative error. It is a product of four rounded factors: a
                // rounded constant, the argument's square twice, and the product. The exponential itself, 4u, the polynomial beside it and the
                // quotient are within 16u.
                double argument = function switch
                {
                    Function.Silu => 0,
                    Function.Gelu => inputs[i] * inputs[i] / 2,
                    _ => 1.6 * Math.Abs(inputs[i] + 0.0447 * Math.Pow(inputs[i], 3)),
                };
                double tolerance = Math.Abs(expected) * Math.Pow(2, -24) * (16 + 4 * argument) + 1e-37;
                Assert.True(Math.Abs(outputs[i] - expected) <= tolerance,
                    $"seed {seed}: {function}({inputs[i]:R}) = {outputs[i]:R}, expected {expected:R}");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Gates_of_cells_are_right_to_two_to_the_minus_21(InstructionSet set)
    {
        InstructionSets.Require(set);
        int seed = Random.Shared.Next();
        float[] inputs = Inputs(seed, -12, 12), sigmoid = Apply(set, Function.Sigmoid, inputs), tanh = Apply(set, Function.Tanh, inputs);
        for (int i = 0; i < inputs.Length; i++)
        {
            double x = inputs[i];
            Assert.True(Math.Abs(sigmoid[i] - 1 / (1 + Math.Exp(-x))) <= Math.Pow(2, -21), $"seed {seed}: sigmoid({x:R}) = {sigmoid[i]:R}");
            Assert.True(Math.Abs(tanh[i] - Math.Tanh(x)) <= Math.Pow(2, -21), $"seed {seed}: tanh({x:R}) = {tanh[i]:R}");
        }
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Activations_are_right_far_out(InstructionSet set)
    {
        InstructionSets.Require(set);
        float[] inputs = [0f, 100f, -100f, 1e30f, -1e30f];
        foreach (Function function in new[] { Function.Silu, Function.GeluTanh, Function.Gelu })
        {
            float[] outputs = Apply(set, function, inputs);
            TestRows.Close([0f, 100f, 0f, 1e30f, 0f], outputs, 1e-30, function.ToString());
        }
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Every_finite_half_is_decoded_exactly(InstructionSet set)
    {
        InstructionSets.Require(set);
        var halves = new ushort[1 << 16];
        for (int i = 0; i < halves.Length; i++)
        {
            Half half = BitConverter.UInt16BitsToHalf((ushort)i);
            halves[i] = Half.IsFinite(half) ? (ushort)i : (ushort)0;
        }
        var decoded = new float[halves.Length];
        fixed (ushort* source = halves)
        fixed (float* destination = decoded)
        {
            switch (set)
            {
                case InstructionSet.Avx512:
                    DecodeHalves<Simd512, Vector512<float>>(source, destination, halves.Length);
                    break;
                case InstructionSet.Avx2:
                    DecodeHalves<Simd256, Vector256<float>>(source, destination, halves.Length);
                    break;
                default:
                    DecodeHalves<Simd128, Vector128<float>>(source, destination, halves.Length);
                    break;
            }
        }
        TestRows.SameBits(Array.ConvertAll(halves, static bits => (float)BitConverter.UInt16BitsToHalf(bits)), decoded, "half");
    }

    private static void DecodeHalves<TSimd, V>(ushort* source, float* destination, int count)
        where TSimd : struct, ISimd<V>
        where V : unmanaged
    {
        for (int i = 0; i < count; i += TSimd.Width)
        {
            TSimd.Store(TSimd.LoadHalf(source + i), destination + i);
        }
    }

    private static float[] Inputs(int seed, float lowest, float highest)
    {
        var random = new Random(seed);
        var inputs = new float[20_000];
        for (int i = 0; i < inputs.Length; i++)
        {
            float x = lowest + (highest - lowest) * random.NextSingle();
            inputs[i] = i % 4 == 0 ? x * MathF.Pow(2, -random.Next(30)) : x;
        }
        return inputs;
    }

    private static float[] Apply(InstructionSet set, Function function, float[] inputs) => set switch
    {
        InstructionSet.Avx512 => Apply<Simd512, Vector512<float>>(function, inputs),
        InstructionSet.Avx2 => Apply<Simd256, Vector256<float>>(function, inputs),
        _ => Apply<Simd128, Vector128<float>>(function, inputs),
    };

    private static float[] Apply<TSimd, V>(Function function, float[] inputs)
        where TSimd : struct, ISimd<V>
        where V : unmanaged
    {
        var outputs = new float[inputs.Length];
        float* lanes = stackalloc float[TSimd.Width];
        for (int i = 0; i < inputs.Length; i++)
        {
            V x = TSimd.Broadcast(inputs[i]);
            TSimd.Store(function switch
            {
                Function.Exp => VectorMath<TSimd, V>.Exp(x),
                Function.Silu => VectorMath<TSimd, V>.Silu(x),
                Function.GeluTanh => VectorMath<TSimd, V>.GeluTanh(x),
                Function.Gelu => VectorMath<TSimd, V>.Gelu(x),
                Function.Sigmoid => VectorMath<TSimd, V>.Sigmoid(x),
                _ => VectorMath<TSimd, V>.Tanh(x),
            }, lanes);
            outputs[i] = lanes[i % TSimd.Width];
        }
        return outputs;
    }
}
