using Engine.Cpu;
using Engine.Execution;
using Engine.Reference;
using Xunit;

namespace Engine.Tests.Cpu;

/// <summary>Activations filled, read and compared: what tests need and an executor does not.</summary>
internal static unsafe class TestRows
{
    /// <summary>Numbers of a normal distribution.</summary>
    public static float[] Normal(Random random, int count, double scale = 1)
    {
        var values = new float[count];
        for (int i = 0; i < count; i++)
        {
            double radius = Math.Sqrt(-2 * Math.Log(1 - random.NextDouble()));
            values[i] = (float)(scale * radius * Math.Cos(2 * Math.PI * random.NextDouble()));
        }
        return values;
    }

    /// <summary>Activations of either backend with these values.</summary>
    public static Activations Make(IBackend backend, ReadOnlySpan<float> values, int width)
    {
        Activations activations = backend.Allocate(values.Length / width, width);
        activations.Rows = values.Length / width;
        Write(activations, values);
        return activations;
    }

    /// <summary>Room for rows, all of them in use.</summary>
    public static Activations Make(IBackend backend, int rows, int width)
    {
        Activations activations = backend.Allocate(rows, width);
        activations.Rows = rows;
        return activations;
    }

    /// <summary>Begins a step and selects the rows that enter in it.</summary>
    public static void Begin(IBackend backend, StepPlan step, KvStorage kv)
    {
        var selected = new RowSet();
        selected.TakeEntering(step);
        backend.BeginStep(step, kv);
        backend.SelectRows(selected);
    }

    public static void Write(Activations activations, ReadOnlySpan<float> values)
    {
        switch (activations)
        {
            case CpuActivations cpu:
                values.CopyTo(new Span<float>(cpu.Address, activations.Capacity * activations.Width));
                break;
            case ReferenceActivations reference:
                for (int i = 0; i < values.Length; i++)
                {
                    reference.Values[i] = values[i];
                }
                break;
            default:
                throw new ArgumentException("unknown activations", nameof(activations));
        }
    }

    public static float[] Read(IBackend backend, Activations activations)
    {
        var values = new float[activations.Rows * activations.Width];
        backend.ReadRows(activations, values);
        return values;
    }

    /// <summary>Every number within <paramref name="tolerance"/>, relative to the larger of 1 and the expected.</summary>
    public static void Close(float[] expected, float[] actual, double tolerance, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int i = 0; i < expected.Length; i++)
        {
            double error = Math.Abs((double)actual[i] - expected[i]) / Math.Max(1, Math.Abs((double)expected[i]));
            Assert.True(error <= tolerance, $"{what}: element {i} is {actual[i]:R}, expected {expected[i]:R} (error {error:E2} > {tolerance:E2})");
        }
    }

    /// <summary>Every number within its own tolerance.</summary>
    public static void Close(float[] expected, float[] actual, float[] tolerances, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        Assert.Equal(expected.Length, tolerances.Length);
        for (int i = 0; i < expected.Length; i++)
        {
            double error = Math.Abs((double)actual[i] - expected[i]);
            Assert.True(error <= tolerances[i], $"{what}: element {i} is {actual[i]:R}, expected {expected[i]:R} (error {error:E2} > {tolerances[i]:E2})");
        }
    }

    /// <summary>Every number has the same bits.</summary>
    public static void SameBits(ReadOnlySpan<float> expected, ReadOnlySpan<float> actual, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int i = 0; i < expected.Length; i++)
        {
            Assert.True(BitConverter.SingleToInt32Bits(expected[i]) == BitConverter.SingleToInt32Bits(actual[i]),
                $"{what}: element {i} is {actual[i]:R}, expected exactly {expected[i]:R}");
        }
    }
}
