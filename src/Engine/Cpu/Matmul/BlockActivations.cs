using System.Collections.Immutable;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul;

/// <summary>
/// Quantized activations of a linear map, once for each order of columns that its matrices have: most have none, and those of one layer often the same.
/// </summary>
/// <param name="orders">Distinct; an empty one where columns are in order. None where no matrix reads quantized activations.</param>
internal sealed unsafe class BlockActivations(ImmutableArray<ImmutableArray<int>> orders)
{
    /// <summary>Finds the orders of matrices, and tells each which it reads.</summary>
    public static BlockActivations Of(IEnumerable<PackedMatrix> matrices)
    {
        var orders = new List<ImmutableArray<int>>();
        foreach (PackedMatrix matrix in matrices.Where(static matrix => (matrix.Reads & ActivationForms.Blocks) != 0))
        {
            int known = orders.FindIndex(order => order.AsSpan().SequenceEqual(matrix.Order.AsSpan()));
            matrix.ActivationOrder = known < 0 ? orders.Count : known;
            if (known < 0)
            {
                orders.Add(matrix.Order);
            }
        }
        return new BlockActivations([.. orders]);
    }

    /// <summary>Bytes of one order, with room to keep the next aligned.</summary>
    public static nuint OrderBytes(int inputs, int tokens) => ((nuint)tokens * (nuint)ActivationLayout.TokenBytes(inputs) + 127) & ~(nuint)63;

    /// <summary>Bytes of all orders.</summary>
    public nuint Bytes(int inputs, int tokens) => (nuint)orders.Length * OrderBytes(inputs, tokens);

    /// <summary>A thread's share of quantizing the inputs of a job.</summary>
    public void Prepare(in MultiplyJob job, int inputs, int thread, int threads)
    {
        for (int order = 0; order < orders.Length; order++)
        {
            Prepare(job, inputs, orders[order].AsSpan(), job.Blocks + (nuint)order * job.OrderBytes, thread, threads);
        }
    }

    private static void Prepare(in MultiplyJob job, int inputs, ReadOnlySpan<int> order, byte* target, int thread, int threads)
    {
        int blocks = ActivationLayout.Blocks(inputs), whole = inputs / ActivationLayout.BlockInputs;
        float* gathered = stackalloc float[ActivationLayout.BlockInputs];
        TokenTiles tiles = BlockKernel.Tiles(job.Tokens);
        long all = (long)job.Tokens * blocks, end = all * (thread + 1) / threads;
        for (long i = all * thread / threads; i < end;)
        {
            int token = (int)(i / blocks), block = (int)(i % blocks), last = (int)Math.Min(blocks, block + end - i);
            int tile = tiles.Of(token), size = tiles.Size(tile), first = tiles.First(tile);
            byte* records = target + first * ActivationLayout.TokenBytes(inputs);
            float* row = job.Row(token, inputs);
            i += last - block;
            for (; block < last; block++)
            {
                byte* record = records + block * (long)(ActivationLayout.BytesPerToken * size);
                float* source = row + block * ActivationLayout.BlockInputs;
                if (block == whole || !order.IsEmpty)
                {
                    Gather(row, order, block * ActivationLayout.BlockInputs, inputs, gathered);
                    source = gathered;
                }
                ActivationQuantizer.Quantize(source, record, size, token - first);
            }
        }
    }

    /// <summary>The inputs of a block in order, zeros past the last.</summary>
    private static void Gather(float* row, ReadOnlySpan<int> order, int first, int inputs, float* block)
    {
        int count = Math.Min(ActivationLayout.BlockInputs, inputs - first);
        for (int i = 0; i < count; i++)
        {
            block[i] = row[order.IsEmpty ? first + i : order[first + i]];
        }
        for (int i = count; i < ActivationLayout.BlockInputs; i++)
        {
            block[i] = 0;
        }
    }
}
