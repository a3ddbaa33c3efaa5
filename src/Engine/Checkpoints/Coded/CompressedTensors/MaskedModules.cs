namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>
/// Modules that are stored without their zeros: <c>compressed</c>, <c>bitmask</c>, <c>shape</c>, and <c>row_offsets</c> where rows keep different numbers. They are
/// matrices of codes where the weights that are kept are, and floats that are written out when they are asked for where not; packing finds the zeros again.
/// Files from before 2024-12 put the name of the weight before these, as in <c>weight.compressed</c>, and have vectors among them.
/// </summary>
/// <param name="config">The configuration.</param>
internal sealed class MaskedModules(CompressedTensorsConfig config)
{
    /// <summary>What a module's tensors are called.</summary>
    public const string Kept = "compressed", Mask = "bitmask", Shape = "shape", RowOffsets = "row_offsets", Old = "weight.";

    private TensorsOnDemand? expanded;

    /// <summary>Reads a module.</summary>
    /// <param name="module">The module; it has a mask.</param>
    /// <param name="scheme">How what is kept is quantized; null where it is not.</param>
    /// <exception cref="EngineException">Tensors are missing or do not fit the configuration or each other.</exception>
    public CodedWeight Read(CodedModule module, CodedScheme? scheme)
    {
        string before = module.HasAny(Old + Mask, Old + Kept) ? Old : "";
        if (!config.IsSparse(module.Name))
        {
            throw module.Error(before + Mask, $"sparsity_config does not say that the module is sparse, but that its format is {config.Sparsity}");
        }
        TensorView shape = module.Get(before + Shape, DType.I64, DType.I32), mask = module.Get(before + Mask, DType.U8);
        TensorView kept = module.Get(before + Kept, DType.I8, DType.F8_E4M3, DType.F32, DType.F16, DType.BF16);
        bool twoOfFour = config.Sparsity == CompressedTensorsConfig.TwoOfFour, isVector = shape.ElementCount == 1 && !twoOfFour;
        if (shape.ElementCount != 2 && !isVector)
        {
            throw module.Error(before + Shape, $"expected two sizes; found {shape.DescribeShape()}");
        }
        (long rows, int columns) = isVector
            ? module.RequireSize(before + Shape, 1, shape.Integer(0)) : module.RequireSize(before + Shape, shape.Integer(0), shape.Integer(1));
        module.RequireShape(before + Mask, mask, isVector ? [(columns + 7) / 8] : [rows, (columns + 7) / 8]);
        TensorView? offsets = null;
        if (twoOfFour)
        {
            if (columns % 4 != 0)
            {
                throw module.Error(before + Shape, $"expected a multiple of 4 columns; found {columns}");
            }
            module.RequireShape(before + Kept, kept, rows, columns / 2);
        }
        else
        {
            module.RequireShape(before + Kept, kept, kept.ElementCount);
            offsets = module.Get(before + RowOffsets, DType.I64, DType.I32);
            module.RequireShape(before + RowOffsets, offsets, isVector ? [] : [rows]);
        }
        var weights = new BitmaskRows(kept, mask, offsets, columns);
        if (kept.DType is DType.F32 or DType.F16 or DType.BF16)
        {
            expanded ??= new TensorsOnDemand(module.Source.Path);
            long[] size = isVector ? [columns] : [rows, columns];
            return new CodedWeight(
                TensorView.Outline(module.WeightName, kept.DType, size),
                () => expanded.Get(module.WeightName, kept.DType, size, buffer => weights.Expand(buffer.Address)));
        }
        if (isVector || scheme is null || scheme.IsFloat != (kept.DType == DType.F8_E4M3) || scheme.Format is null || !ByteModules.Formats.Contains(scheme.Format))
        {
            throw module.Error(before + Kept, $"found {kept.DType}, which does not fit {(isVector ? "a vector" : scheme is null ? "a module that is not quantized" : $"the format {scheme.Format}")}");
        }
        return CodedWeight.Of(ByteModules.Read(
            module, scheme, $"{scheme.Format} {config.Sparsity}", rows, columns, weights.Codes(ByteModules.FlipOf(scheme)),
            offsets is null ? [kept, mask, shape] : [kept, mask, offsets, shape]));
    }
}
