using System.Collections.Frozen;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Coded;

/// <summary>Modules as AutoAWQ's <c>gemm</c> version stores them: 4-bit codes and zero points packed along the outputs, eight in a word in the order 0, 2, 4, 6, 1, 3, 5, 7.</summary>
internal sealed class AwqModules : ICodedModules
{
    private const string Codes = "qweight", Zeros = "qzeros", Scales = "scales";
    private const int PerWord = 8, Bits = 4;

    // Which nibble of a word an output is in.
    private static readonly int[] nibbles = [0, 4, 1, 5, 2, 6, 3, 7];

    private readonly int groupSize;
    private readonly string[] unconverted;

    /// <summary>Reads <c>quantization_config</c>.</summary>
    /// <exception cref="EngineException">It is malformed, or of a kind that is not read.</exception>
    public AwqModules(JsonObject config, string file)
    {
        string version = CodedConfig.Text(config, "version") ?? "gemm";
        if (!version.Equals("gemm", StringComparison.OrdinalIgnoreCase))
        {
            throw CodedConfig.Error(file, "version", $"the version '{version}' is not supported; expected gemm");
        }
        int bits = CodedConfig.Number(config, "bits", file) ?? CodedConfig.Number(config, "w_bit", file) ?? Bits;
        if (bits != Bits)
        {
            throw CodedConfig.Error(file, "bits", $"expected 4; found {bits}");
        }
        groupSize = CodedConfig.Number(config, "group_size", file) ?? CodedConfig.Number(config, "q_group_size", file) ?? 128;
        if (groupSize is 0 or < -1)
        {
            throw CodedConfig.Error(file, "group_size", $"expected -1 or a size of at least 1; found {groupSize}");
        }
        unconverted = CodedConfig.Texts(config, "modules_to_not_convert", file);
    }

    /// <inheritdoc/>
    public IReadOnlySet<string> Companions { get; } = FrozenSet.Create(Codes, Zeros, Scales);

    /// <inheritdoc/>
    public CodedWeight? Read(CodedModule module)
    {
        if (!module.Has(Codes))
        {
            return null;
        }
        if (unconverted.FirstOrDefault(part => module.Name.Contains(part, StringComparison.Ordinal)) is { } spared)
        {
            throw module.Error(Codes, $"modules_to_not_convert spares '{spared}', but the module is quantized");
        }
        TensorView codes = module.Get(Codes, DType.I32), scales = module.Get(Scales, DType.F16, DType.BF16, DType.F32), zeros = module.Get(Zeros, DType.I32);
        if (codes.Shape.Length != 2)
        {
            throw module.Error(Codes, $"expected a matrix; found {codes.DescribeShape()}");
        }
        (long rows, int columns) = module.RequireSize(Codes, codes.Shape[1] * PerWord, codes.Shape[0]);
        int groupColumns = groupSize == -1 ? columns : Math.Min(groupSize, columns), groups = (columns + groupColumns - 1) / groupColumns;
        module.RequireShape(Scales, scales, groups, rows);
        module.RequireShape(Zeros, zeros, groups, rows / PerWord);
        return CodedWeight.Of(new StoredMatrix
        {
            Name = module.WeightName,
            Format = "AWQ int4",
            Rows = rows,
            Columns = columns,
            Bits = Bits,
            Numbers = CodeNumbers.Integer,
            GroupColumns = groupColumns,
            Zero = null,
            Codes = (row, destination) =>
            {
                for (int column = 0; column < destination.Length; column++)
                {
                    destination[column] = (byte)At(codes, column, row);
                }
            },
            Scales = (row, destination, points) =>
            {
                for (int group = 0; group < destination.Length; group++)
                {
                    destination[group] = scales.Float(group * rows + row);
                    points[group] = At(zeros, group, row);
                }
            },
            Parts = [codes, scales, zeros],
        });
    }

    private static int At(TensorView packed, int line, long output) =>
        (int)(packed.Word(line * packed.Columns + output / PerWord) >> (4 * nibbles[output % PerWord])) & 15;
}
