using System.Collections.Frozen;
using System.Collections.Immutable;
using System.Numerics;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints.Coded;

/// <summary>
/// Modules as bitsandbytes stores them: NF4 or FP4 in blocks of the flat matrix, whose largest values may themselves be 8-bit codes; or 8-bit integers with the
/// largest value of each output.
/// </summary>
internal sealed class BitsAndBytesModules : ICodedModules
{
    private const string Weight = "weight", Largest = "weight.absmax", Map = "weight.quant_map";
    private const string NestedLargest = "weight.nested_absmax", NestedMap = "weight.nested_quant_map";
    private const string Nf4 = "weight.quant_state.bitsandbytes__nf4", Fp4 = "weight.quant_state.bitsandbytes__fp4";
    private const string OutputLargest = "SCB", Int8Layout = "weight_format";
    private const int MostStateBytes = 1 << 16;

    /// <inheritdoc/>
    public IReadOnlySet<string> Companions { get; } =
        FrozenSet.Create(Largest, Map, NestedLargest, NestedMap, Nf4, Fp4, OutputLargest, Int8Layout);

    /// <inheritdoc/>
    public CodedWeight? Read(CodedModule module) =>
        module.HasAny(Nf4, Fp4) ? CodedWeight.Of(ReadFourBits(module, module.Has(Nf4) ? Nf4 : Fp4))
        : module.HasAny(OutputLargest, Int8Layout) ? CodedWeight.Of(ReadIntegers(module))
        : module.HasAny(Largest, Map, NestedLargest, NestedMap) ? throw module.Error(Nf4, "the tensor is missing; the module is quantized")
        : null;

    private static StoredMatrix ReadFourBits(CodedModule module, string stateName)
    {
        JsonObject state = ReadState(module, stateName);
        int blockSize = Count(module, stateName, state, "blocksize");
        (long rows, int columns) = ReadShape(module, stateName, state);
        TensorView codes = module.Get(Weight, DType.U8), map = module.Get(Map, [16], DType.F32);
        long elements = checked(rows * columns), blocks = (elements + blockSize - 1) / blockSize;
        if (codes.ElementCount != (elements + 1) / 2)
        {
            throw module.Error(Weight, $"expected {(elements + 1) / 2} bytes for [{rows}, {columns}]; found {codes.DescribeShape()}");
        }
        ImmutableArray<float> table = [.. Enumerable.Range(0, 16).Select(i => map.Float(i))];
        if (table.Any(static value => !float.IsFinite(value)))
        {
            throw module.Error(Map, "a value is NaN or infinite");
        }
        (Func<long, float> scaleOf, ImmutableArray<TensorView> stored) = ReadLargest(module, stateName, state, blocks);
        // Blocks are of the flat matrix: where they do not end with rows, scales of a row are those of the runs that all blocks are made of.
        int run = columns % blockSize == 0 ? blockSize : blockSize % columns == 0 ? columns : (int)BigInteger.GreatestCommonDivisor(columns, blockSize);
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = stateName == Nf4 ? "bitsandbytes NF4" : "bitsandbytes FP4",
            Rows = rows,
            Columns = columns,
            Bits = 4,
            Numbers = CodeNumbers.Table,
            Table = table,
            GroupColumns = run,
            Zero = 0,
            Codes = CodeReaders.FlatNibbles(codes, columns),
            Scales = (row, destination, _) =>
            {
                for (int i = 0; i < destination.Length; i++)
                {
                    destination[i] = scaleOf((row * columns + (long)i * run) / blockSize);
                }
            },
            Parts = [codes, map, module.Get(stateName, DType.U8), .. stored],
        };
    }

    private static (Func<long, float> Of, ImmutableArray<TensorView> Stored) ReadLargest(CodedModule module, string stateName, JsonObject state, long blocks)
    {
        TensorView largest = module.Get(Largest, [blocks], DType.F32, DType.U8);
        if (largest.DType == DType.F32)
        {
            return (largest.Float, [largest]);
        }
        int nestedSize = Count(module, stateName, state, "nested_blocksize");
        TensorView nestedMap = module.Get(NestedMap, [256], DType.F32);
        TensorView nested = module.Get(NestedLargest, [(blocks + nestedSize - 1) / nestedSize], DType.F32);
        float offset = state["nested_offset"] is JsonValue value && value.TryGetValue(out double number) && float.IsFinite((float)number)
            ? (float)number : throw module.Error(stateName, "expected a finite nested_offset");
        return (block => nestedMap.Float(largest.Byte(block)) * nested.Float(block / nestedSize) + offset, [largest, nested, nestedMap]);
    }

    private static StoredMatrix ReadIntegers(CodedModule module)
    {
        TensorView weight = module.Get(Weight, DType.I8);
        (long rows, int columns) = weight.Shape is [var r, var c]
            ? module.RequireSize(Weight, r, c) : throw module.Error(Weight, $"expected a matrix; found {weight.DescribeShape()}");
        if (module.Find(Int8Layout) is { } layout && (layout.ElementCount != 1 || layout.DType != DType.U8 || layout.Byte(0) != 0))
        {
            throw module.Error(Int8Layout, "expected the row-major layout, 0");
        }
        TensorView largest = module.Get(OutputLargest, [rows], DType.F32);
        return new StoredMatrix
        {
            Name = module.WeightName,
            Format = "bitsandbytes int8",
            Rows = rows,
            Columns = columns,
            Bits = 8,
            Numbers = CodeNumbers.Integer,
            GroupColumns = columns,
            Zero = 128,
            Codes = CodeReaders.Bytes(weight, 0x80),
            Scales = (row, destination, _) => destination[0] = largest.Float(row) / 127f,
            Parts = [weight, largest],
        };
    }

    private static JsonObject ReadState(CodedModule module, string name)
    {
        TensorView tensor = module.Get(name, DType.U8);
        if (tensor.ByteLength > MostStateBytes)
        {
            throw module.Error(name, $"expected at most {MostStateBytes} bytes of JSON; found {tensor.ByteLength}");
        }
        try
        {
            string text = new UTF8Encoding(false, true).GetString(tensor.Bytes);
            return JsonNode.Parse(text, documentOptions: new JsonDocumentOptions { MaxDepth = 8, AllowDuplicateProperties = false }) as JsonObject
                ?? throw module.Error(name, "expected a JSON object");
        }
        catch (Exception exception) when (exception is JsonException or ArgumentException)
        {
            throw module.Error(name, $"it is not JSON: {exception.Message}");
        }
    }

    private static (long Rows, int Columns) ReadShape(CodedModule module, string name, JsonObject state) =>
        state["shape"] is JsonArray { Count: 2 } shape && shape[0] is JsonValue r && r.TryGetValue(out long rows) && shape[1] is JsonValue c && c.TryGetValue(out long columns)
            ? module.RequireSize(name, rows, columns)
            : throw module.Error(name, $"expected a shape of two sizes; found {state["shape"]?.ToJsonString() ?? "none"}");

    private static int Count(CodedModule module, string name, JsonObject state, string key) => state[key] switch
    {
        JsonValue value when value.TryGetValue(out int count) && count > 0 => count,
        var node => throw module.Error(name, $"expected {key} of at least 1; found {node?.ToJsonString() ?? "none"}"),
    };
}
