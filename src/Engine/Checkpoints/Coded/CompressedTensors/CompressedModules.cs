using System.Collections.Frozen;

namespace Engine.Checkpoints.Coded.CompressedTensors;

/// <summary>
/// Modules as compressed-tensors stores them (github.com/vllm-project/compressed-tensors, compressors/): integers and floats in all its packings, and weights
/// without their zeros. Only weights are read so: what the configuration says of activations and of the KV cache is other engines' arithmetic, and the scales of
/// those are hidden.
/// </summary>
internal sealed class CompressedModules(CompressedTensorsConfig config) : ICodedModules
{
    private const string Weight = "weight", Packed = PackedModules.Packed, Scale = "weight_scale", GlobalScale = "weight_global_scale";
    private const string Nvfp4 = "nvfp4-pack-quantized", Mxfp4 = "mxfp4-pack-quantized", Mxfp8 = "mxfp8-quantized", Marlin = "marlin-24";

    private readonly MaskedModules masked = new(config);
    private readonly PackedModules packed = new(config);

    /// <summary>Formats that are read.</summary>
    public static FrozenSet<string> Formats { get; } = FrozenSet.Create([PackedModules.Format, .. ByteModules.Formats, Nvfp4, Mxfp4, Mxfp8, Marlin]);

    /// <inheritdoc/>
    public IReadOnlySet<string> Companions { get; } = FrozenSet.Create(
        Packed, Scale, GlobalScale, PackedModules.Zero, PackedModules.Shape, PackedModules.Groups, Marlin24.Meta, Marlin24.Scale,
        MaskedModules.Kept, MaskedModules.Mask, MaskedModules.Shape, MaskedModules.RowOffsets,
        MaskedModules.Old + MaskedModules.Kept, MaskedModules.Old + MaskedModules.Mask, MaskedModules.Old + MaskedModules.Shape,
        MaskedModules.Old + MaskedModules.RowOffsets,
        "input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point", "output_global_scale",
        "q_scale", "k_scale", "v_scale", "q_zero_point", "k_zero_point", "v_zero_point", "q_global_scale", "k_global_scale", "v_global_scale");

    /// <inheritdoc/>
    public CodedWeight? Read(CodedModule module)
    {
        CodedScheme? scheme = config.SchemeOf(module.Name);
        if (module.HasAny(MaskedModules.Mask, MaskedModules.Kept, MaskedModules.Old + MaskedModules.Mask, MaskedModules.Old + MaskedModules.Kept))
        {
            return masked.Read(module, scheme);
        }
        bool isCoded = module.HasAny(Packed, Scale, GlobalScale, PackedModules.Shape, PackedModules.Zero, PackedModules.Groups, Marlin24.Scale);
        if (module.Find(Weight) is { DType: DType.F32 or DType.F16 or DType.BF16 } && !module.Has(Packed))
        {
            // A class names modules that were left as they were, embeddings and norms among them.
            return isCoded ? throw module.Error(Scale, "there are scales of codes, but the weight is floats: it was not compressed") : null;
        }
        if (scheme is null)
        {
            return isCoded
                ? throw new EngineException("the module has quantized tensors, but no group of the configuration is for it", module.Source.Path, module.Name)
                : null;
        }
        if (!isCoded && !module.Has(Weight))
        {
            return null; // Scales of activations or of a KV cache alone.
        }
        return CodedWeight.Of(scheme.Format switch
        {
            PackedModules.Format => packed.Read(module, scheme),
            Nvfp4 => ReadNvfp4(module, scheme),
            Mxfp4 => ReadPowers(module, Packed, CodeNumbers.E2M1, scheme),
            Mxfp8 => ReadPowers(module, Weight, CodeNumbers.E4M3, scheme),
            Marlin => Marlin24.Read(module, scheme),
            { } format when ByteModules.Formats.Contains(format) => ByteModules.Read(module, scheme),
            var format => throw module.Error(Weight, $"the weight is quantized, but its format is '{format}'"),
        });
    }

    private static StoredMatrix ReadNvfp4(CodedModule module, CodedScheme scheme)
    {
        RequireFloats(module, Packed, scheme, 4, Nvfp4Matrix.Group);
        return Nvfp4Matrix.Read(module, Packed, GlobalScale, divides: true);
    }

    /// <summary>MXFP4 and MXFP8: floats with a power of two per 32 inputs.</summary>
    private static StoredMatrix ReadPowers(CodedModule module, string weightName, CodeNumbers numbers, CodedScheme scheme)
    {
        const int group = 32;
        bool nibbles = numbers == CodeNumbers.E2M1;
        int bits = nibbles ? 4 : 8;
        RequireFloats(module, weightName, scheme, bits, group);
        TensorView weight = module.Get(weightName, nibbles ? DType.U8 : DType.F8_E4M3);
        (long rows, int stored) = module.RequireMatrix(weightName, weight);
        int columns = nibbles ? 2 * stored : stored, perRow = (columns - 1) / group + 1;
        TensorView powers = module.Get(Scale, [rows, perRow], DType.U8, DType.F8_E8M0);
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = nibbles ? "MXFP4" : "MXFP8",
            Rows = rows,
            Columns = columns,
            Bits = bits,
            Numbers = numbers,
            Table = CodeTables.Of(numbers),
            GroupColumns = group,
            Zero = 0,
            Codes = nibbles ? CodeReaders.Nibbles(weight) : CodeReaders.Bytes(weight, 0),
            Scales = (row, destination, _) =>
            {
                for (int i = 0; i < destination.Length; i++)
                {
                    byte power = powers.Byte(row * perRow + i);
                    destination[i] = power == 0xFF ? float.NaN : MathF.ScaleB(1f, power - 127);
                }
            },
            Parts = [weight, powers],
        };
    }

    /// <summary>Refuses a configuration that says something else than the format has.</summary>
    private static void RequireFloats(CodedModule module, string suffix, CodedScheme scheme, int bits, int group)
    {
        if (!scheme.IsFloat || scheme.Bits != bits || !scheme.Symmetric || scheme.Reach != ScaleReach.Group || scheme.GroupSize != group)
        {
            throw module.Error(suffix, $"{scheme.Format} has symmetric floats of {bits} bits in groups of {group}; the configuration says otherwise");
        }
    }
}
