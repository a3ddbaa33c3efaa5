using System.Numerics;
using System.Runtime.InteropServices;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>Numbers and bit fields as bytes of files, and what small floats stand for, written down a second time.</summary>
internal static class RawValues
{
    private static readonly double[] e2m1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

    /// <summary>Bytes of little-endian numbers.</summary>
    public static byte[] Bytes<T>(IEnumerable<T> values)
        where T : unmanaged => MemoryMarshal.AsBytes<T>(values.ToArray()).ToArray();

    /// <summary>A tensor of 32-bit words.</summary>
    public static RawTensor Words(string name, long[] shape, IEnumerable<uint> words) => new(name, "I32", shape, Bytes(words));

    /// <summary>A tensor of floats in one of the three types, drawn at random; the values must fit in eight bits of mantissa and a small exponent.</summary>
    public static RawTensor Floats(string name, long[] shape, IReadOnlyList<float> values, string type) => new(name, type, shape, type switch
    {
        "F32" => Bytes(values),
        "F16" => Bytes(values.Select(static value => (Half)value)),
        _ => Bytes(values.Select(static value => (ushort)(BitConverter.SingleToUInt32Bits(value) >> 16))),
    });

    /// <summary>A stream of fields of some bits, lowest bits first, in whole 32-bit words.</summary>
    public static uint[] Stream(IReadOnlyList<int> fields, int bits)
    {
        var words = new uint[(fields.Count * bits + 31) / 32];
        for (int bit = 0; bit < fields.Count * bits; bit++)
        {
            words[bit / 32] |= (uint)(fields[bit / bits] >> bit % bits & 1) << bit % 32;
        }
        return words;
    }

    /// <summary>A positive number around <paramref name="magnitude"/>, a power of two, with seven bits behind the first: exact in every float type.</summary>
    public static float Scale(Random random, float magnitude) => magnitude * (1 + random.Next(128) / 128f);

    /// <summary>The number of an E4M3 byte (OCP 8-bit floats 2023, table 1).</summary>
    public static double E4M3(int code)
    {
        int exponent = code >> 3 & 15, mantissa = code & 7;
        double magnitude = exponent == 0 ? mantissa / 8.0 * Math.Pow(2, -6) : (1 + mantissa / 8.0) * Math.Pow(2, exponent - 7);
        return (code & 0x80) != 0 ? -magnitude : magnitude;
    }

    /// <summary>The number of an E2M1 nibble (OCP MX 2023, table 5).</summary>
    public static double E2M1(int code) => code < 8 ? e2m1[code] : -e2m1[code - 8];

    /// <summary>An E4M3 byte that is a number.</summary>
    public static int FiniteE4M3(Random random)
    {
        int code = random.Next(256);
        return (code & 0x7F) == 0x7F ? code - 1 : code;
    }

    /// <summary>The nearest power of two.</summary>
    public static float PowerOfTwo(double value) => (float)Math.Pow(2, Math.Round(Math.Log2(value)));

    /// <summary>Numbers in a random order.</summary>
    public static int[] Shuffled(Random random, IEnumerable<int> values)
    {
        int[] shuffled = [.. values];
        random.Shuffle(shuffled);
        return shuffled;
    }

    /// <summary>Random integers below a limit.</summary>
    public static int[] Codes(Random random, int count, int limit) => [.. Enumerable.Range(0, count).Select(_ => random.Next(limit))];

    /// <summary>Divided and rounded up.</summary>
    public static T Ceiling<T>(T value, T by)
        where T : IBinaryInteger<T> => (value + by - T.One) / by;
}
