namespace Engine.Cpu;

/// <summary>A list that kernels can read by pointer. It keeps its memory when it is cleared, so it stops allocating once it has grown.</summary>
internal sealed unsafe class NativeList<T> : IDisposable
    where T : unmanaged
{
    private NativeBuffer memory = new(64 * sizeof(T), "step tables");
    private int capacity = 64;

    public int Count { get; private set; }

    /// <summary>The first item; valid until the next <see cref="Add"/> or <see cref="Resize"/>.</summary>
    public T* Address => (T*)memory.Address;

    public void Clear() => Count = 0;

    public void Add(T item)
    {
        Resize(Count + 1);
        Address[Count - 1] = item;
    }

    /// <summary>Changes the number of items; new ones are undefined.</summary>
    public void Resize(int count)
    {
        if (count > capacity)
        {
            int larger = (int)Math.Min(int.MaxValue, Math.Max(count, 2L * capacity));
            var replacement = new NativeBuffer((long)larger * sizeof(T), "step tables");
            Buffer.MemoryCopy(memory.Address, replacement.Address, replacement.Bytes, (long)Count * sizeof(T));
            memory.Dispose();
            (memory, capacity) = (replacement, larger);
        }
        Count = count;
    }

    public void Dispose() => memory.Dispose();
}
