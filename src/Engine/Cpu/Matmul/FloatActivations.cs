using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul;

/// <summary>
/// Activations in the order that kernels for float formats read them: per tile of T tokens [inputs, T] float32, or [pairs of inputs, T] of two
/// bfloat16 each. A last input without a partner has a zero beside it.
/// </summary>
internal static unsafe class FloatActivations
{
    // Inputs that are taken from one token before the next: a cache line, while the lines of the tile that they go to stay in the cache.
    private const int Run = 16;

    /// <summary>32-bit words of a token.</summary>
    public static long TokenWords(int inputs, ActivationForms form) => form == ActivationForms.Pairs ? (inputs + 1) / 2 : (inputs + 1) & ~1;

    /// <summary>A thread's share of the inputs of all tokens.</summary>
    /// <param name="job">The job.</param>
    /// <param name="inputs">Inputs of a token.</param>
    /// <param name="form">Any but <see cref="ActivationForms.Blocks"/>.</param>
    /// <param name="target">Receives the tiles.</param>
    /// <param name="thread">Which thread.</param>
    /// <param name="threads">Of how many.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Interleave(in MultiplyJob job, int inputs, ActivationForms form, uint* target, int thread, int threads)
    {
        var tiles = new TokenTiles(job.Tokens, FloatKernel.MaxTokens);
        long tokenWords = TokenWords(inputs, form);
        int runs = (inputs + Run - 1) / Run, runWords = form == ActivationForms.Pairs ? Run / 2 : Run;
        int firstRun = (int)((long)runs * thread / threads), endRun = (int)((long)runs * (thread + 1) / threads);
        uint* words = stackalloc uint[4 * Run];
        float* tail = stackalloc float[Run];
        for (int tile = 0; tile < tiles.Count; tile++)
        {
            int size = tiles.Size(tile), first = tiles.First(tile);
            for (int run = firstRun; run < endRun; run++)
            {
                uint* tileWords = target + first * tokenWords + run * (long)runWords * size;
                int count = (int)Math.Min(runWords, tokenWords - run * (long)runWords), left = inputs - run * Run;
                int token = 0;
                for (; token + 4 <= size && left >= Run; token += 4)
                {
                    for (int i = 0; i < 4; i++)
                    {
                        Convert(job.Row(first + token + i, inputs) + run * Run, form, words + i * Run);
                    }
                    for (int word = 0; word < runWords; word += 4)
                    {
                        Transpose(words + word, Run, tileWords + word * size + token, size);
                    }
                }
                for (; token < size; token++)
                {
                    float* source = job.Row(first + token, inputs) + run * Run;
                    if (left < Run)
                    {
                        new Span<float>(tail, Run).Clear();
                        new ReadOnlySpan<float>(source, left).CopyTo(new Span<float>(tail, left));
                        source = tail;
                    }
                    Convert(source, form, words);
                    for (int word = 0; word < count; word++)
                    {
                        tileWords[word * size + token] = words[word];
                    }
                }
            }
        }
    }

    /// <summary>Brings 16 inputs to 16 or 8 words.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Convert(float* source, ActivationForms form, uint* words)
    {
        Vector256<float> a = Vector256.Load(source), b = Vector256.Load(source + 8);
        switch (form)
        {
            case ActivationForms.Floats:
                a.AsUInt32().Store(words);
                b.AsUInt32().Store(words + 8);
                break;
            case ActivationForms.RoundedFloats:
                Round(a).Store(words);
                Round(b).Store(words + 8);
                break;
            default:
                Vector256.Narrow(Pairs(Round(a)), Pairs(Round(b))).Store(words);
                break;
        }
    }

    /// <summary>Writes 4 rows of 4 words as 4 columns.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Transpose(uint* rows, int rowStride, uint* columns, int columnStride)
    {
        Vector128<uint> a = Vector128.Load(rows), b = Vector128.Load(rows + rowStride);
        Vector128<uint> c = Vector128.Load(rows + 2 * rowStride), d = Vector128.Load(rows + 3 * rowStride);
        Vector128<ulong> ab = ZipLower(a, b), cd = ZipLower(c, d);
        ZipLower(ab, cd).Store(columns);
        ZipUpper(ab, cd).Store(columns + columnStride);
        (ab, cd) = (ZipUpper(a, b), ZipUpper(c, d));
        ZipLower(ab, cd).Store(columns + 2 * columnStride);
        ZipUpper(ab, cd).Store(columns + 3 * columnStride);
    }

    /// <summary>The lower halves of two vectors, their words taking turns.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<ulong> ZipLower(Vector128<uint> a, Vector128<uint> b) =>
        (Sse2.IsSupported ? Sse2.UnpackLow(a, b)
        : AdvSimd.Arm64.IsSupported ? AdvSimd.Arm64.ZipLow(a, b)
        : Vector128.Create(a[0], b[0], a[1], b[1])).AsUInt64();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<ulong> ZipUpper(Vector128<uint> a, Vector128<uint> b) =>
        (Sse2.IsSupported ? Sse2.UnpackHigh(a, b)
        : AdvSimd.Arm64.IsSupported ? AdvSimd.Arm64.ZipHigh(a, b)
        : Vector128.Create(a[2], b[2], a[3], b[3])).AsUInt64();

    /// <summary>The same for pairs of words. Vector128.Create of halves would go through memory.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<uint> ZipLower(Vector128<ulong> a, Vector128<ulong> b) =>
        (Sse2.IsSupported ? Sse2.UnpackLow(a, b)
        : AdvSimd.Arm64.IsSupported ? AdvSimd.Arm64.ZipLow(a, b)
        : Vector128.Create(a[0], b[0])).AsUInt32();

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<uint> ZipUpper(Vector128<ulong> a, Vector128<ulong> b) =>
        (Sse2.IsSupported ? Sse2.UnpackHigh(a, b)
        : AdvSimd.Arm64.IsSupported ? AdvSimd.Arm64.ZipHigh(a, b)
        : Vector128.Create(a[1], b[1])).AsUInt32();

    /// <summary>The nearest bfloat16, ties to even, as the high half; what is beyond the largest becomes infinity and NaN stays NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<uint> Round(Vector256<float> values)
    {
        Vector256<uint> bits = values.AsUInt32();
        Vector256<uint> rounded = bits + Vector256.Create(0x7FFFu) + ((bits >>> 16) & Vector256.Create(1u));
        Vector256<uint> quiet = bits | Vector256.Create(0x00400000u);
        return Vector256.ConditionalSelect(Vector256.Equals(values, values).AsUInt32(), rounded, quiet) & Vector256.Create(0xFFFF0000u);
    }

    /// <summary>The low half of each 64 bits becomes a pair: the first input in its high half, as in a panel of <see cref="Formats.BFloat16"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector256<ulong> Pairs(Vector256<uint> rounded) => rounded.AsUInt64() | (rounded.AsUInt64() >>> 48);
}
