using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>The page pool in host memory; how a page is laid out depends on the slot it serves.</summary>
internal sealed unsafe class CpuKv : KvStorage
{
    private readonly NativeBuffer memory;
    private readonly KvLayout[] layouts;

    /// <exception cref="EngineException">A shape is impossible, or there is not so much memory.</exception>
    public CpuKv(IReadOnlyList<KvSlotPlan> slots, KvFormat format, int pageCount, int pageTokens)
    {
        if (slots.Count == 0 || pageCount < 1 || pageTokens < 1)
        {
            throw new EngineException($"a KV cache needs slots, pages and tokens, found {slots.Count}, {pageCount} and {pageTokens}");
        }
        layouts = new KvLayout[slots.Count];
        for (int slot = 0; slot < slots.Count; slot++)
        {
            KvSlotPlan shape = slots[slot];
            // A bound far above any model's, so that no product below overflows.
            if (shape.KvHeads is < 1 or > 1 << 16 || shape.HeadDim is < 1 or > 1 << 16 || pageTokens > 1 << 16
                || shape.ValueDim < 1 || shape.ValueDim > shape.HeadDim)
            {
                throw new EngineException($"impossible shape: {shape.KvHeads} heads of {shape.HeadDim}, values of {shape.ValueDim}, pages of {pageTokens} tokens",
                    item: $"KV slot {slot}");
            }
            if (format == KvFormat.Q8_0 && shape.HeadDim % KvLayout.BlockElements != 0)
            {
                throw new EngineException($"a Q8_0 cache needs a head dimension that is a multiple of {KvLayout.BlockElements}, found {shape.HeadDim}",
                    item: $"KV slot {slot}");
            }
            layouts[slot] = new KvLayout(shape, format, pageTokens);
            PageBytes = Math.Max(PageBytes, layouts[slot].PageBytes);
        }
        PageBytes = (PageBytes + NativeBuffer.Alignment - 1) & -(long)NativeBuffer.Alignment;
        PageCount = pageCount;
        PageTokens = pageTokens;
        Format = format;
        if (PageBytes > long.MaxValue / pageCount)
        {
            throw new EngineException($"{pageCount} pages of {PageBytes} bytes are not to be had", item: "KV cache");
        }
        memory = new NativeBuffer(PageBytes * pageCount, "KV cache");
    }

    public KvFormat Format { get; }

    public int PageCount { get; }

    public int PageTokens { get; }

    public long PageBytes { get; }

    public int SlotCount => layouts.Length;

    public byte* Address => (byte*)memory.Address;

    public override long Bytes => memory.Bytes;

    public ref readonly KvLayout Layout(int slot) => ref layouts[slot];

    public override void Dispose() => memory.Dispose();
}
