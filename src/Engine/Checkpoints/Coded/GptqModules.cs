using System.Collections.Frozen;
using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Engine.Checkpoints.Coded;

/// <summary>
/// Modules as GPTQ's tools store them (AutoGPTQ, GPTQModel): codes packed down the inputs, zero points along the outputs, a group for each input. Files of version 1
/// have 1 subtracted from every zero point.
/// </summary>
internal sealed class GptqModules : ICodedModules
{
    private const string Codes = "qweight", Zeros = "qzeros", Scales = "scales", Groups = "g_idx";

    private readonly string file;
    private readonly int bits;
    private readonly int groupSize;
    private readonly bool version2;
    private readonly bool byActivationOrder;
    private readonly List<(Regex Pattern, bool Skips, int Bits, int GroupSize)> overrides = [];

    /// <summary>Reads <c>quantization_config</c>, or a <c>quantize_config.json</c>.</summary>
    /// <exception cref="EngineException">It is malformed, or of a kind that is not read.</exception>
    public GptqModules(JsonObject config, string file)
    {
        this.file = file;
        bits = RequireBits(CodedConfig.RequireNumber(config, file, "bits"));
        groupSize = CodedConfig.RequireGroupSize(CodedConfig.RequireNumber(config, file, "group_size"), file);
        byActivationOrder = CodedConfig.Flag(config, "desc_act", file);
        string format = CodedConfig.Flag(config, "is_marlin_format", file)
            ? "marlin" : CodedConfig.Text(config, "checkpoint_format", file) ?? CodedConfig.Text(config, "format", file) ?? "gptq";
        version2 = format switch
        {
            "gptq" => false,
            "gptq_v2" => true,
            _ => throw CodedConfig.Error(file, "checkpoint_format", $"the format '{format}' is not supported; expected gptq or gptq_v2"),
        };
        foreach ((string key, JsonNode? value) in ObjectOf(config["dynamic"]))
        {
            AddOverride(key, value);
        }
    }

    /// <inheritdoc/>
    public IReadOnlySet<string> Companions { get; } = FrozenSet.Create(Codes, Zeros, Scales, Groups);

    /// <inheritdoc/>
    public CodedWeight? Read(CodedModule module)
    {
        if (!module.HasAny(Codes, Zeros, Scales, Groups))
        {
            return null;
        }
        (int b, int size) = SettingsOf(module);
        TensorView codes = module.Get(Codes, DType.I32), scales = module.Get(Scales, DType.F16, DType.BF16, DType.F32), zeros = module.Get(Zeros, DType.I32);
        if (codes.Shape.Length != 2 || scales.Shape.Length != 2)
        {
            throw module.Error(Codes, $"expected matrices; found {codes.DescribeShape()} and scales {scales.DescribeShape()}");
        }
        (long rows, int columns) = module.RequireSize(Codes, codes.Shape[1], codes.Shape[0] * 32 / b);
        if (codes.Shape[0] * 32 % b != 0 || columns % (b == 3 ? 32 : 32 / b) != 0)
        {
            throw module.Error(Codes, $"expected rows of whole words of {b}-bit codes; found {codes.DescribeShape()}");
        }
        int groupColumns = size == -1 ? columns : Math.Min(size, columns), groups = checked((int)scales.Shape[0]);
        if (groups != (columns + groupColumns - 1) / groupColumns)
        {
            throw module.Error(Scales, $"expected {(columns + groupColumns - 1) / groupColumns} groups of {groupColumns} inputs; found {groups}");
        }
        module.RequireShape(Scales, scales, groups, rows);
        module.RequireShape(Zeros, zeros, groups, (rows * b + 31) / 32);
        TensorView? indices = byActivationOrder && groups > 1 ? module.Get(Groups, DType.I32) : module.Find(Groups);
        ColumnGroups places = indices is null ? ColumnGroups.Runs(groupColumns) : module.ReadGroups(Groups, columns, groups, groupColumns);
        return CodedWeight.Of(new StoredMatrix
        {
            Name = module.WeightName,
            Format = $"GPTQ int{b}",
            Rows = rows,
            Columns = columns,
            Bits = b,
            Numbers = CodeNumbers.Integer,
            GroupColumns = places.GroupColumns,
            Order = places.Order,
            Zero = null,
            Codes = places.Arrange(columns, CodeReaders.Columns(codes, b)),
            Scales = (row, destination, points) =>
            {
                for (int i = 0; i < destination.Length; i++)
                {
                    int group = places.ScaleOf(i);
                    destination[i] = scales.Float(group * rows + row);
                    points[i] = ZeroPoint(zeros, group, row, b);
                }
            },
            Parts = indices is null ? [codes, scales, zeros] : [codes, scales, zeros, indices],
        });
    }

    /// <summary>
    /// What was subtracted is added to whole words, so that a borrow goes back where it came from; 3-bit fields lie across words, and are mended one by one.
    /// </summary>
    private int ZeroPoint(TensorView zeros, int group, long row, int b)
    {
        long first = group * zeros.Columns;
        if (b == 3)
        {
            uint field = zeros.Field(first, 1, row, b);
            return (int)(version2 ? field : (field + 1) & 7);
        }
        uint word = zeros.Word(first + row * b / 32);
        if (!version2)
        {
            word += b switch { 2 => 0x55555555u, 4 => 0x11111111u, _ => 0x01010101u };
        }
        return (int)(word >> (int)(row * b % 32)) & ((1 << b) - 1);
    }

    private (int Bits, int GroupSize) SettingsOf(CodedModule module)
    {
        try
        {
            foreach ((Regex pattern, bool skips, int b, int size) in overrides)
            {
                if (pattern.IsMatch(module.Name))
                {
                    return skips
                        ? throw module.Error(Codes, "the configuration says that the module is not quantized (dynamic)")
                        : (b, size);
                }
            }
        }
        catch (RegexMatchTimeoutException exception)
        {
            throw new EngineException($"the expression {exception.Pattern} takes too long", file, "quantization_config.dynamic", exception);
        }
        return (bits, groupSize);
    }

    private void AddOverride(string key, JsonNode? value)
    {
        bool skips = key.StartsWith("-:", StringComparison.Ordinal);
        string pattern = skips || key.StartsWith("+:", StringComparison.Ordinal) ? key[2..] : key;
        try
        {
            var regex = new Regex($@"\A(?:{pattern})", RegexOptions.CultureInvariant, TimeSpan.FromSeconds(1));
            JsonObject settings = ObjectOf(value);
            overrides.Add((
                regex, skips, RequireBits(CodedConfig.Number(settings, "bits", file) ?? bits),
                CodedConfig.RequireGroupSize(CodedConfig.Number(settings, "group_size", file) ?? groupSize, file)));
        }
        catch (ArgumentException exception)
        {
            throw CodedConfig.Error(file, "dynamic", $"'{pattern}' is not a regular expression: {exception.Message}");
        }
    }

    /// <summary>Overrides, or an empty object where there is none.</summary>
    private JsonObject ObjectOf(JsonNode? node) => node switch
    {
        null => [],
        JsonObject settings => settings,
        _ => throw CodedConfig.Error(file, "dynamic", $"expected objects; found {node.ToJsonString()}"),
    };

    private int RequireBits(int value) => value is 2 or 3 or 4 or 8
        ? value
        : throw CodedConfig.Error(file, "bits", string.Create(CultureInfo.InvariantCulture, $"expected 2, 3, 4 or 8; found {value}"));
}
