using System.Collections.Immutable;

namespace Engine.Checkpoints.Coded;

/// <summary>
/// NVFP4: 4-bit floats, two in a byte with the even column low, with a scale in E4M3 for 16 inputs and one in float32 for the matrix (formats.md §3.2, §3.7).
/// </summary>
internal static class Nvfp4Matrix
{
    /// <summary>Inputs that share a scale.</summary>
    public const int Group = 16;

    private const string Scales = "weight_scale";

    /// <summary>Reads a module.</summary>
    /// <param name="module">The module.</param>
    /// <param name="weight">The tensor of codes, U8 [rows, columns / 2].</param>
    /// <param name="global">The tensor of the matrix's scale.</param>
    /// <param name="divides">Scales are divided by that of the matrix, not multiplied.</param>
    /// <exception cref="EngineException">Tensors are missing or do not fit each other, or the matrix's scale is 0 or not finite.</exception>
    public static StoredMatrix Read(CodedModule module, string weight, string global, bool divides)
    {
        TensorView packed = module.Get(weight, DType.U8);
        (long rows, int half) = module.RequireMatrix(weight, packed);
        int columns = 2 * half, perRow = (columns - 1) / Group + 1;
        TensorView scales = module.Get(Scales, [rows, perRow], DType.F8_E4M3), whole = module.GetFloats(global, [1], [], [1, 1]);
        float factor = whole.Float(0);
        if (!float.IsFinite(factor) || factor == 0)
        {
            throw module.Error(global, $"expected a finite number other than 0; found {factor}");
        }
        ImmutableArray<float> table = CodeTables.Of(CodeNumbers.E4M3);
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = "NVFP4",
            Rows = rows,
            Columns = columns,
            Bits = 4,
            Numbers = CodeNumbers.E2M1,
            Table = CodeTables.Of(CodeNumbers.E2M1),
            GroupColumns = Group,
            Zero = 0,
            Codes = CodeReaders.Nibbles(packed),
            Scales = (row, destination, _) =>
            {
                for (int i = 0; i < destination.Length; i++)
                {
                    float scale = table[scales.Byte(row * perRow + i)];
                    destination[i] = divides ? scale / factor : scale * factor;
                }
            },
            Parts = [packed, scales, whole],
        };
    }
}
