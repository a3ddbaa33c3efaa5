using System.Text.Json.Nodes;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>A module packed by the tests' own packers.</summary>
/// <param name="Tensors">Its tensors, named without the module.</param>
/// <param name="Weights">What it stands for, [rows, columns].</param>
internal sealed record PackedModule(IReadOnlyList<RawTensor> Tensors, float[] Weights);

/// <summary>One way to store quantized modules, its settings drawn at random.</summary>
/// <param name="Config">The configuration's <c>quantization_config</c>.</param>
/// <param name="Fits">Whether it can store a matrix of so many rows and columns.</param>
/// <param name="Pack">
/// Draws codes and scales of a matrix of rows and columns, with weights of about the size of the last argument, and packs them.
/// </param>
internal sealed record PackedFormat(JsonObject Config, Func<int, int, bool> Fits, Func<Random, int, int, float, PackedModule> Pack)
{
    private static readonly Dictionary<string, Func<Random, PackedFormat>> makers = new()
    {
        ["gptq 2 bit"] = static random => GptqPacker.Make(random, 2),
        ["gptq 3 bit"] = static random => GptqPacker.Make(random, 3),
        ["gptq 4 bit"] = static random => GptqPacker.Make(random, 4),
        ["gptq 8 bit"] = static random => GptqPacker.Make(random, 8),
        ["awq"] = AwqPacker.Make,
        ["bitsandbytes nf4"] = static random => BitsAndBytesPacker.MakeFourBits(random, "nf4"),
        ["bitsandbytes fp4"] = static random => BitsAndBytesPacker.MakeFourBits(random, "fp4"),
        ["bitsandbytes int8"] = static _ => BitsAndBytesPacker.MakeIntegers(),
        ["fp8 blocks"] = Float8Packer.MakeBlocks,
        ["fp8 scalars"] = Float8Packer.MakeScalars,
        ["modelopt nvfp4"] = static _ => Float8Packer.MakeNvfp4(),
        ["pack-quantized 1 bit"] = static random => PackQuantizedPacker.Make(random, 1),
        ["pack-quantized 2 bit"] = static random => PackQuantizedPacker.Make(random, 2),
        ["pack-quantized 3 bit"] = static random => PackQuantizedPacker.Make(random, 3),
        ["pack-quantized 4 bit"] = static random => PackQuantizedPacker.Make(random, 4),
        ["pack-quantized 5 bit"] = static random => PackQuantizedPacker.Make(random, 5),
        ["pack-quantized 6 bit"] = static random => PackQuantizedPacker.Make(random, 6),
        ["pack-quantized 7 bit"] = static random => PackQuantizedPacker.Make(random, 7),
        ["pack-quantized 8 bit"] = static random => PackQuantizedPacker.Make(random, 8),
        ["int-quantized"] = static random => BytePacker.Make(random, isFloat: false),
        ["float-quantized"] = static random => BytePacker.Make(random, isFloat: true),
        ["nvfp4-pack-quantized"] = static _ => SmallFloatPacker.MakeNvfp4(),
        ["mxfp4-pack-quantized"] = static _ => SmallFloatPacker.MakeMx(4),
        ["mxfp8-quantized"] = static _ => SmallFloatPacker.MakeMx(8),
        ["sparse-24-bitmask"] = static random => BitmaskPacker.Make(random, twoOfFour: true, null),
        ["sparse-24-bitmask int8"] = static random => BitmaskPacker.Make(random, twoOfFour: true, isFloat: false),
        ["sparse-24-bitmask fp8"] = static random => BitmaskPacker.Make(random, twoOfFour: true, isFloat: true),
        ["sparse-bitmask"] = static random => BitmaskPacker.Make(random, twoOfFour: false, null),
        ["sparse-bitmask int8"] = static random => BitmaskPacker.Make(random, twoOfFour: false, isFloat: false),
        ["sparse-bitmask fp8"] = static random => BitmaskPacker.Make(random, twoOfFour: false, isFloat: true),
        ["marlin-24 4 bit"] = static random => Marlin24Packer.Make(random, 4),
        ["marlin-24 8 bit"] = static random => Marlin24Packer.Make(random, 8),
    };

    /// <summary>What is stored are codes; floats are read as they are.</summary>
    public bool IsCoded { get; init; } = true;

    /// <summary>All names.</summary>
    public static TheoryData<string> Names => [.. makers.Keys];

    /// <summary>Draws the settings of a format.</summary>
    public static PackedFormat Make(string name, Random random) => makers[name](random);

    /// <summary>For messages: the settings.</summary>
    public override string ToString() => Config.ToJsonString();
}
