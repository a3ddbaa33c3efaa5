using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul;

/// <summary>float32 activations in the order that kernels for float formats read them: per tile of T tokens [inputs, T].</summary>
internal static unsafe class FloatActivations
{
    /// <summary>A thread's share of the tokens.</summary>
    public static void Interleave(in MultiplyJob job, int inputs, int thread, int threads)
    {
        var tiles = new TokenTiles(job.Tokens, FloatKernel.MaxTokens);
        int end = (int)((long)job.Tokens * (thread + 1) / threads);
        for (int token = (int)((long)job.Tokens * thread / threads); token < end; token++)
        {
            int tile = tiles.Of(token), size = tiles.Size(tile), first = tiles.First(tile);
            float* source = job.Input + (long)token * inputs, target = job.Floats + (long)first * inputs + token - first;
            for (int i = 0; i < inputs; i++, target += size)
            {
                *target = source[i];
            }
        }
    }
}
