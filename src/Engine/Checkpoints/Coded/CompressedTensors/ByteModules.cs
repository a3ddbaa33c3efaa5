using System.Collections.Frozen;
using System.Collections.Immutable;

namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>Modules whose codes are bytes: signed integers, or E4M3, with scales of tensors, channels, groups or blocks.</summary>
internal static class ByteModules
{
    private const string Zero = "weight_zero_point";

    /// <summary>Their formats.</summary>
    public static FrozenSet<string> Formats { get; } = FrozenSet.Create("int-quantized", "naive-quantized", "float-quantized");

    /// <summary>What turns a stored byte into its code: signed integers become unsigned.</summary>
    public static byte FlipOf(CodedScheme scheme) => (byte)(scheme.IsFloat ? 0 : 0x80);

    /// <summary>Reads a module's <c>weight</c>.</summary>
    /// <exception cref="EngineException">Tensors are missing or do not fit the configuration or each other.</exception>
    public static StoredMatrix Read(CodedModule module, CodedScheme scheme)
    {
        TensorView weight = module.Get("weight", scheme.IsFloat ? DType.F8_E4M3 : DType.I8);
        (long rows, int columns) = module.RequireMatrix("weight", weight);
        return Read(module, scheme, scheme.Format!, rows, columns, CodeReaders.Bytes(weight, FlipOf(scheme)), [weight]);
    }

    /// <summary>Reads scales and zero points of codes that are stored in one way or another.</summary>
    /// <param name="module">The module.</param>
    /// <param name="scheme">How it is quantized.</param>
    /// <param name="format">What the format is called.</param>
    /// <param name="rows">Outputs.</param>
    /// <param name="columns">Inputs.</param>
    /// <param name="codes">Reads the codes.</param>
    /// <param name="stored">What they are stored in.</param>
    /// <exception cref="EngineException">Tensors are missing or do not fit the configuration.</exception>
    public static StoredMatrix Read(
        CodedModule module, CodedScheme scheme, string format, long rows, int columns, CodeReader codes, ImmutableArray<TensorView> stored)
    {
        const int offset = 128;
        TensorView scales = scheme.ScalesOf(module, rows, columns);
        int perRow = scheme.GroupsOf(columns);
        long rowsPerScale = scheme.RowsPerScale;
        ScaleReader readScales = ScaleReaders.Floats(scales, rowsPerScale, perRow);
        TensorView? zeros = null;
        if (!scheme.Symmetric)
        {
            if (scheme.IsFloat)
            {
                throw module.Error(Zero, "floats with zero points are not supported");
            }
            zeros = module.Get(Zero, scales.Shape, DType.I8);
            ScaleReader floats = readScales;
            readScales = (row, destination, points) =>
            {
                floats(row, destination, points);
                for (int i = 0; i < destination.Length; i++)
                {
                    points[i] = (sbyte)zeros.Byte(row / rowsPerScale * perRow + i) + offset;
                }
            };
        }
        CodeNumbers numbers = scheme.IsFloat ? CodeNumbers.E4M3 : CodeNumbers.Integer;
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = $"{format} {(scheme.IsFloat ? "fp8" : $"int{scheme.Bits}")}",
            Rows = rows,
            Columns = columns,
            Bits = 8,
            Numbers = numbers,
            Table = CodeTables.Of(numbers),
            GroupColumns = scheme.GroupColumnsOf(columns),
            Zero = scheme.IsFloat ? 0 : scheme.Symmetric ? offset : null,
            Codes = codes,
            Scales = readScales,
            Parts = zeros is null ? [.. stored, scales] : [.. stored, scales, zeros],
        };
    }
}
