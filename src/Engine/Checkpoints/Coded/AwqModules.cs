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
        string version = CodedConfig.Text(config, "version", file) ?? "gemm";
        if (!version.Equals("gemm", StringComparison.OrdinalIgnoreCase))
        {
            throw CodedConfig.Error(file, "version", $"the version '{version}' is not supported; expected gemm");
        }
        int bits = CodedConfig.RequireNumber(config, file, "bits", "w_bit");
        if (bits != Bits)
        {
            throw CodedConfig.Error(file, "bits", $"expected 4; found {bits}");
        }
        groupSize = CodedConfig.RequireGroupSize(CodedConfig.RequireNumber(config, file, "group_size", "q_group_size"), file);
        unconverted = CodedConfig.Texts(config, "modules_to_not_convert", file);
    }

    /// <inheritdoc/>
    public IReadOnlySet<string> Companions { get; } = FrozenSet.Create(Codes, Zeros, Scales);

    /// <inheritdoc/>
    public CodedWeight? Read(CodedModule module)
    {
        if (!module.HasAny(Codes, Zeros, Scales))
        {
            return null;
        }
        if (unconverted.FirstOrDefault(part => IsPartOf(part, module.Name)) is { } spared)
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
                long word = row / PerWord, stride = codes.Columns;
                int shift = Bits * nibbles[row % PerWord];
                for (int column = 0; column < destination.Length; column++, word += stride)
                {
                    destination[column] = (byte)(codes.Word(word) >> shift & 15);
                }
            },
            Scales = (row, destination, points) =>
            {
                int shift = Bits * nibbles[row % PerWord];
                for (int group = 0; group < destination.Length; group++)
                {
                    destination[group] = scales.Float(group * rows + row);
                    points[group] = (int)(zeros.Word(group * zeros.Columns + row / PerWord) >> shift) & 15;
                }
            },
            Parts = [codes, scales, zeros],
        });
    }

    /// <summary>
    /// A name of a list is a module's where it is one or several of its words. Some tools spare whatever the text is found in, "gate" in "gate_proj" too, and
    /// others do not: which they did, the tensors say.
    /// </summary>
    private static bool IsPartOf(string part, string module) => $".{module}.".Contains($".{part}.", StringComparison.Ordinal);
}
