using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Checkpoints;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>Codes that stand for floats and meet float32 activations.</summary>
internal unsafe interface ICodedFloats : IFloatFormat
{
    /// <summary>Fills the table that <see cref="IFloatFormat.Widen"/> is given.</summary>
    /// <param name="numbers">The number of each code.</param>
    /// <param name="table">[16].</param>
    static abstract void FillTable(ReadOnlySpan<float> numbers, Span<float> table);

    /// <summary>Stores the code of one row in a step.</summary>
    static abstract void Store(byte code, byte* element, int input);
}

/// <summary>S.EEEE.MMM.</summary>
internal unsafe struct FloatE4M3 : ICodedFloats
{
    public static DType DType => DType.F8_E4M3;
    public static int StepBytes => 1;
    public static int StepInputs => 1;

    public static void FillTable(ReadOnlySpan<float> numbers, Span<float> table) => table.Fill(SmallFloats.E4M3Factor);

    public static void Store(byte code, byte* element, int input) => *element = code;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(byte* elements, int input, float* table) => SmallFloats.WidenE4M3(elements);
}

/// <summary>S.EEEEE.MM.</summary>
internal unsafe struct FloatE5M2 : ICodedFloats
{
    public static DType DType => DType.F8_E5M2;
    public static int StepBytes => 1;
    public static int StepInputs => 1;

    public static void FillTable(ReadOnlySpan<float> numbers, Span<float> table) => table.Fill(SmallFloats.E5M2Factor);

    public static void Store(byte code, byte* element, int input) => *element = code;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(byte* elements, int input, float* table) => SmallFloats.WidenE5M2(elements);
}

/// <summary>Codes of up to 4 bits whose numbers a table has.</summary>
internal unsafe struct TableNibbles : ICodedFloats
{
    public static DType DType => DType.Coded;
    public static int StepBytes => 1;
    public static int StepInputs => 2;

    public static void FillTable(ReadOnlySpan<float> numbers, Span<float> table) => numbers.CopyTo(table);

    /// <summary>The first code is both until there is a second: a last one without a partner is multiplied by zero, and must be a number for that.</summary>
    public static void Store(byte code, byte* element, int input) => *element = (byte)(input == 0 ? code * 0x11 : *element & 15 | code << 4);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(byte* elements, int input, float* table)
    {
        Vector256<int> codes = (Widening.ToInt32(elements) >>> (4 * input)) & Vector256.Create(15);
        if (Avx2.IsSupported)
        {
            Vector256<float> lower = Avx2.PermuteVar8x32(Vector256.Load(table), codes), upper = Avx2.PermuteVar8x32(Vector256.Load(table + 8), codes);
            return Vector256.ConditionalSelect(Vector256.GreaterThan(codes, Vector256.Create(7)).AsSingle(), upper, lower);
        }
        return Vector256.Create(
            table[codes[0]], table[codes[1]], table[codes[2]], table[codes[3]], table[codes[4]], table[codes[5]], table[codes[6]], table[codes[7]]);
    }
}
