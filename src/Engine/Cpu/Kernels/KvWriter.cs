using System.Numerics.Tensors;

namespace Engine.Cpu.Kernels;

/// <summary>Puts a head's key or value of one token into its tile, rounded as the format says.</summary>
internal static unsafe class KvWriter
{
    /// <summary>Elements converted at a time, on the stack.</summary>
    private const int Chunk = 64;

    private const float LargestHalf = 65504f;

    /// <summary>K is transposed: a token is a column.</summary>
    public static void StoreKey(in KvLayout layout, byte* tile, int token, float* head)
    {
        int columns = layout.TileTokens;
        switch (layout.Format)
        {
            case Execution.KvFormat.F32:
                float* column = (float*)tile + token;
                for (int i = 0; i < layout.HeadDim; i++)
                {
                    column[(nint)i * columns] = head[i];
                }
                break;
            case Execution.KvFormat.F16:
                Half* halves = stackalloc Half[Chunk];
                for (int start = 0; start < layout.HeadDim; start += Chunk)
                {
                    int count = Math.Min(Chunk, layout.HeadDim - start);
                    ToHalf(head + start, halves, count);
                    Half* destination = (Half*)tile + (nint)start * columns + token;
                    for (int i = 0; i < count; i++)
                    {
                        destination[(nint)i * columns] = halves[i];
                    }
                }
                break;
            default:
                sbyte* codes = stackalloc sbyte[KvLayout.BlockElements];
                float* scales = (float*)(tile + (nint)layout.HeadDim * columns);
                for (int start = 0; start < layout.HeadDim; start += KvLayout.BlockElements)
                {
                    scales[(nint)(start / KvLayout.BlockElements) * columns + token] = ToBlock(head + start, codes);
                    sbyte* destination = (sbyte*)tile + (nint)start * columns + token;
                    for (int i = 0; i < KvLayout.BlockElements; i++)
                    {
                        destination[(nint)i * columns] = codes[i];
                    }
                }
                break;
        }
    }

    /// <summary>V is not transposed: a token is a row.</summary>
    public static void StoreValue(in KvLayout layout, byte* tile, int token, float* head)
    {
        int columns = layout.PaddedValueDim;
        switch (layout.Format)
        {
            case Execution.KvFormat.F32:
                new Span<float>(head, layout.HeadDim).CopyTo(new Span<float>((float*)tile + (nint)token * columns, layout.HeadDim));
                break;
            case Execution.KvFormat.F16:
                ToHalf(head, (Half*)tile + (nint)token * columns, layout.HeadDim);
                break;
            default:
                sbyte* codes = (sbyte*)tile + (nint)token * columns;
                float* scales = (float*)(tile + (nint)layout.TileTokens * columns) + (nint)token * (columns / KvLayout.BlockElements);
                for (int start = 0; start < layout.HeadDim; start += KvLayout.BlockElements)
                {
                    scales[start / KvLayout.BlockElements] = ToBlock(head + start, codes + start);
                }
                break;
        }
    }

    /// <summary>Rounds to binary16; what lies outside its range becomes its largest number, so that one outlier does not erase a sequence.</summary>
    private static void ToHalf(float* source, Half* destination, int count)
    {
        float* clamped = stackalloc float[Chunk];
        for (int start = 0; start < count; start += Chunk)
        {
            var part = new Span<float>(clamped, Math.Min(Chunk, count - start));
            TensorPrimitives.Clamp(new ReadOnlySpan<float>(source + start, part.Length), -LargestHalf, LargestHalf, part);
            TensorPrimitives.ConvertToHalf(part, new Span<Half>(destination + start, part.Length));
        }
    }

    /// <summary>Q8_0 of 32 numbers: codes to <paramref name="codes"/>; returns the scale, rounded to binary16.</summary>
    private static float ToBlock(float* source, sbyte* codes)
    {
        float largest = 0;
        for (int i = 0; i < KvLayout.BlockElements; i++)
        {
            largest = MathF.Max(largest, MathF.Abs(source[i]));
        }
        float step = largest / 127f;
        float inverse = step == 0 ? 0 : 1f / step;
        for (int i = 0; i < KvLayout.BlockElements; i++)
        {
            codes[i] = (sbyte)MathF.Round(source[i] * inverse, MidpointRounding.ToEven);
        }
        return (float)(Half)step;
    }
}
