using System.Collections.Frozen;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Coded;

/// <summary>
/// Modules with weights in FP8 (<c>quant_method: fp8</c>): E4M3 with a scale for each block of outputs and inputs, <c>weight_scale_inv</c> (DeepSeek-V3; it multiplies,
/// whatever its name), or for the matrix or each output, <c>weight_scale</c>.
/// </summary>
internal sealed class Float8Modules : ICodedModules
{
    private const string BlockScales = "weight_scale_inv", Scales = "weight_scale", Weight = "weight";

    private readonly (int Rows, int Columns)? block;

    /// <summary>Reads <c>quantization_config</c>.</summary>
    /// <exception cref="EngineException">It is malformed, or of a kind that is not read.</exception>
    public Float8Modules(JsonObject config, string file)
    {
        if (CodedConfig.Text(config, "fmt", file) is { } format and not ("e4m3" or "float8_e4m3fn"))
        {
            throw CodedConfig.Error(file, "fmt", $"expected e4m3; found {format}");
        }
        if (config["weight_block_size"] is { } size)
        {
            block = size is JsonArray { Count: 2 } array && array[0] is JsonValue r && r.TryGetValue(out int rows) && array[1] is JsonValue c
                && c.TryGetValue(out int columns) && rows > 0 && columns > 0
                ? (rows, columns)
                : throw CodedConfig.Error(file, "weight_block_size", $"expected two sizes of at least 1; found {size.ToJsonString()}");
        }
    }

    /// <inheritdoc/>
    public IReadOnlySet<string> Companions { get; } = FrozenSet.Create(BlockScales, Scales, "input_scale", "k_scale", "v_scale");

    /// <inheritdoc/>
    public CodedWeight? Read(CodedModule module)
    {
        if (module.Find(Weight) is not { DType: DType.F8_E4M3 } weight)
        {
            return module.Has(BlockScales) || module.Has(Scales) ? throw module.Error(Weight, "expected a weight in F8_E4M3 beside its scales") : null;
        }
        (long rows, int columns) = weight.Shape is [var r, var c]
            ? module.RequireSize(Weight, r, c) : throw module.Error(Weight, $"expected a matrix; found {weight.DescribeShape()}");
        TensorView scales;
        long rowsPerScale;
        int groupColumns = columns;
        if (module.Has(BlockScales))
        {
            (int blockRows, int blockColumns) = block ?? throw module.Error(BlockScales, "there are scales of blocks, but the configuration has no weight_block_size");
            (rowsPerScale, groupColumns) = (blockRows, Math.Min(blockColumns, columns));
            scales = module.GetFloats(BlockScales, [(rows + blockRows - 1) / blockRows, (columns + blockColumns - 1) / blockColumns]);
        }
        else
        {
            scales = module.GetFloats(Scales, [], [1], [1, 1], [rows], [rows, 1]);
            rowsPerScale = scales.ElementCount == rows ? 1 : long.MaxValue;
        }
        return CodedWeight.Of(new StoredMatrix
        {
            Name = module.WeightName,
            Format = "FP8 E4M3",
            Rows = rows,
            Columns = columns,
            Bits = 8,
            Numbers = CodeNumbers.E4M3,
            Table = CodeTables.Of(CodeNumbers.E4M3),
            GroupColumns = groupColumns,
            Zero = 0,
            Codes = CodeReaders.Bytes(weight, 0),
            Scales = ScaleReaders.Floats(scales, rowsPerScale, (columns + groupColumns - 1) / groupColumns),
            Parts = [weight, scales],
        });
    }
}
