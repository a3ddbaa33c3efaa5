using Engine.Execution;
using Engine.Plans;

namespace Engine.Reference;

/// <summary>
/// Keys and values as numbers that the format can hold: a value is rounded when it is appended, so what attention reads is what a backend
/// would decode; what binary16 cannot reach becomes its largest number. A page is [K: pageTokens × kvHeads × headDim | V: likewise] of the slot it serves;
/// where values are a part of the keys, there is no V.
/// </summary>
internal sealed class ReferenceKv(IReadOnlyList<KvSlotPlan> slots, KvFormat format, int pageCount, int pageTokens) : KvStorage
{
    private readonly int pageSize = checked((int)slots.Max(slot => pageTokens * slot.ElementsPerToken));
    private readonly Dictionary<int, float[]> pages = [];

    public int PageTokens { get; } = pageTokens;

    public int PageCount { get; } = pageCount;

    public IReadOnlyList<KvSlotPlan> Slots { get; } = slots;

    public override long Bytes => (long)pages.Count * pageSize * sizeof(float);

    public override void Dispose() => pages.Clear();

    /// <summary>A head's key (or value) of a token, to read or to write through <see cref="Round"/>.</summary>
    public Span<float> Head(int page, int slot, bool value, int tokenInPage, int kvHead)
    {
        KvSlotPlan shape = Slots[slot];
        if ((uint)page >= (uint)PageCount)
        {
            throw new EngineException($"the page table names page {page}; the pool has {PageCount}");
        }
        if (!pages.TryGetValue(page, out float[]? data))
        {
            pages[page] = data = new float[pageSize];
        }
        int token = (value && shape.LatentDim is null ? PageTokens : 0) + tokenInPage;
        return data.AsSpan((token * shape.KvHeads + kvHead) * shape.HeadDim, value ? shape.ValueDim : shape.HeadDim);
    }

    /// <summary>Replaces a head's numbers by those nearest that the format can store.</summary>
    public void Round(Span<float> head)
    {
        switch (format)
        {
            case KvFormat.F32:
                break;
            case KvFormat.F16:
                foreach (ref float value in head)
                {
                    value = (float)(Half)Math.Clamp(value, -65504f, 65504f);
                }
                break;
            case KvFormat.Q8_0:
                for (int block = 0; block < head.Length; block += 32)
                {
                    RoundBlock(head.Slice(block, 32));
                }
                break;
            default:
                throw new EngineException($"unknown KV format {format}");
        }
    }

    /// <summary>Q8_0: scale = f16(max|x| / 127), code = round(x / (max|x| / 127)), value = scale · code. In float32, as the format's writers do.</summary>
    private static void RoundBlock(Span<float> block)
    {
        float largest = 0;
        foreach (float value in block)
        {
            largest = MathF.Max(largest, MathF.Abs(value));
        }
        float step = largest / 127f;
        float inverse = step == 0 ? 0 : 1f / step;
        float scale = (float)(Half)step;
        foreach (ref float value in block)
        {
            value = scale * MathF.Round(value * inverse, MidpointRounding.ToEven);
        }
    }
}
