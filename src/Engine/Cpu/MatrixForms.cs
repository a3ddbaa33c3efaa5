using Engine.Checkpoints;
using Engine.Cpu.Matmul;

namespace Engine.Cpu;

/// <summary>What the CPU makes of matrices, for those who look at a checkpoint before running it.</summary>
public static class MatrixForms
{
    /// <summary>
    /// How a tensor would be held as the matrix of a linear map: as it is stored, without zeros where these are enough or in a 2:4 pattern, or decoded where no kernel reads its codes.
    /// The data is read as far as that needs. Null for what is no matrix or cannot be multiplied.
    /// </summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="name">The tensor.</param>
    /// <exception cref="EngineException">There is no such tensor.</exception>
    public static string? Of(Checkpoint checkpoint, string name) => MatrixLoader.FormOf(checkpoint[name], checkpoint);
}
