using Engine.Execution;

namespace Engine.Cpu;

/// <summary>Activations in host memory, [capacity, width], rows without padding.</summary>
internal sealed unsafe class CpuActivations(int capacity, int width) : Activations(capacity, width)
{
    private readonly NativeBuffer memory = new((long)capacity * width * sizeof(float), "activations");

    /// <summary>The first row.</summary>
    public float* Address => (float*)memory.Address;

    public override void Dispose() => memory.Dispose();
}
