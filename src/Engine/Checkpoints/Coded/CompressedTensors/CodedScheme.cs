namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>How far a scale reaches.</summary>
internal enum ScaleReach
{
    /// <summary>The whole matrix.</summary>
    Tensor,
    /// <summary>An output.</summary>
    Channel,
    /// <summary>Some neighbouring inputs of an output.</summary>
    Group,
    /// <summary>A block of outputs and inputs.</summary>
    Block,
}

/// <summary>How weights of a group of modules are quantized (compressed-tensors' <c>QuantizationArgs</c>).</summary>
/// <param name="Format">compressed-tensors' name for how they are packed, or null for that of the whole checkpoint.</param>
/// <param name="Bits">Bits of a code.</param>
/// <param name="IsFloat">Codes are floats.</param>
/// <param name="Symmetric">There are no zero points.</param>
/// <param name="Reach">How far a scale reaches.</param>
/// <param name="GroupSize">Inputs of a group.</param>
/// <param name="Block">Outputs and inputs of a block.</param>
/// <param name="ByActivationOrder">Groups are made of columns that are not neighbours; a tensor says which.</param>
internal sealed record CodedScheme(
    string? Format, int Bits, bool IsFloat, bool Symmetric, ScaleReach Reach, int GroupSize = 0, (int Rows, int Columns) Block = default, bool ByActivationOrder = false)
{
    /// <summary>Outputs that share a scale.</summary>
    public long RowsPerScale => Reach switch
    {
        ScaleReach.Tensor => long.MaxValue,
        ScaleReach.Block => Block.Rows,
        _ => 1,
    };

    /// <summary>Inputs that share a scale, of so many.</summary>
    public int GroupColumnsOf(int columns) => Math.Min(columns, Reach switch
    {
        ScaleReach.Group => GroupSize,
        ScaleReach.Block => Block.Columns,
        _ => columns,
    });

    /// <summary>Scales of an output of so many inputs.</summary>
    public int GroupsOf(int columns) => (columns - 1) / GroupColumnsOf(columns) + 1;

    /// <summary>The scales of a module of this scheme.</summary>
    /// <exception cref="EngineException">They are missing, or have another type or shape.</exception>
    public TensorView ScalesOf(CodedModule module, long rows, int columns)
    {
        const string name = "weight_scale";
        return Reach switch
        {
            ScaleReach.Tensor => module.GetFloats(name, [1], [], [1, 1]),
            ScaleReach.Channel => module.GetFloats(name, [rows, 1], [rows]),
            _ => module.GetFloats(name, [(rows - 1) / RowsPerScale + 1, GroupsOf(columns)]),
        };
    }

    /// <summary>Schemes that a configuration may name instead of writing them out (compressed_tensors/quantization/quant_scheme.py); null for other names.</summary>
    public static CodedScheme? Preset(string name) => name.ToUpperInvariant() switch
    {
        "W8A8" or "INT8" => new("int-quantized", 8, false, true, ScaleReach.Channel),
        "W8A16" => new("pack-quantized", 8, false, true, ScaleReach.Channel),
        "W4A16" => new("pack-quantized", 4, false, true, ScaleReach.Group, 128),
        "W4A16_ASYM" => new("pack-quantized", 4, false, false, ScaleReach.Group, 128),
        "W4A8" => new("int-quantized", 4, false, true, ScaleReach.Group, 128),
        "FP8" => new("float-quantized", 8, true, true, ScaleReach.Tensor),
        "FP8_DYNAMIC" => new("float-quantized", 8, true, true, ScaleReach.Channel),
        "FP8_BLOCK" => new("float-quantized", 8, true, true, ScaleReach.Block, Block: (128, 128)),
        "NVFP4" or "NVFP4A16" => new("nvfp4-pack-quantized", 4, true, true, ScaleReach.Group, 16),
        "MXFP4" or "MXFP4A16" => new("mxfp4-pack-quantized", 4, true, true, ScaleReach.Group, 32),
        "MXFP8" or "MXFP8A16" => new("mxfp8-quantized", 8, true, true, ScaleReach.Group, 32),
        _ => null,
    };
}
