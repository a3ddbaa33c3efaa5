using Engine.Cpu.Kernels;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>
/// Cosines and sines of a rotation, computed in double precision and stored in single, for the positions that have come up so far. Per position:
/// [cos | sin] over pairs for <see cref="RopePairing.Halves"/>; for <see cref="RopePairing.Adjacent"/> [cos, cos | −sin, sin] over elements, so that the
/// rotation is two products and an exchange of neighbours.
/// </summary>
internal sealed unsafe class CpuRope : DeviceWeights
{
    /// <summary>Positions added at a time, at least.</summary>
    private const int Growth = 256;

    private readonly RopePlan plan;
    private NativeBuffer? memory;
    private int positions;

    /// <exception cref="EngineException">There are no positions.</exception>
    public CpuRope(RopePlan plan, int contextLength)
    {
        if (contextLength < 1)
        {
            throw new EngineException($"a rotation needs a context of at least one position, found {contextLength}");
        }
        this.plan = plan;
        ContextLength = contextLength;
    }

    public int ContextLength { get; }

    public int Dimensions => plan.Dimensions;

    public override long Bytes => memory?.Bytes ?? 0;

    public override void Dispose()
    {
        memory?.Dispose();
        memory = null;
        positions = 0;
    }

    /// <summary>The factors of positions 0 … <paramref name="count"/> − 1.</summary>
    /// <exception cref="EngineException">The context is shorter.</exception>
    public RopeTable Table(int count)
    {
        if (count > ContextLength)
        {
            throw new EngineException($"position {count - 1} is past the context of {ContextLength} tokens");
        }
        var table = new RopeTable { Dimensions = plan.Dimensions, Adjacent = plan.Pairing == RopePairing.Adjacent };
        if (memory is null || count > positions)
        {
            Grow(table.Stride, (int)Math.Min(Math.Max(Math.Max(count, Growth), 2L * positions), ContextLength));
        }
        table.Factors = (float*)memory!.Address;
        return table;
    }

    private void Grow(int stride, int target)
    {
        var larger = new NativeBuffer((long)target * stride * sizeof(float), "rotation table");
        var factors = (float*)larger.Address;
        if (memory is not null)
        {
            long known = (long)positions * stride * sizeof(float);
            Buffer.MemoryCopy(memory.Address, factors, larger.Bytes, known);
            memory.Dispose();
        }
        int pairs = plan.InverseFrequencies.Length;
        for (int position = positions; position < target; position++)
        {
            float* row = factors + (long)position * stride;
            for (int pair = 0; pair < pairs; pair++)
            {
                (double sine, double cosine) = Math.SinCos(position * plan.InverseFrequencies[pair]);
                var (c, s) = ((float)(cosine * plan.Magnitude), (float)(sine * plan.Magnitude));
                if (plan.Pairing == RopePairing.Adjacent)
                {
                    row[2 * pair] = row[2 * pair + 1] = c;
                    row[2 * pairs + 2 * pair] = -s;
                    row[2 * pairs + 2 * pair + 1] = s;
                }
                else
                {
                    row[pair] = c;
                    row[pairs + pair] = s;
                }
            }
        }
        memory = larger;
        positions = target;
    }
}
