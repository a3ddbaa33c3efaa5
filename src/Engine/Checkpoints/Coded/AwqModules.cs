using System.Buffers.Binary;
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
            Codes = (row, destination) => ReadRun(codes, columns, row, 1, destination, columns),
            Runs = (firstRow, count, destination, stride) => ReadRun(codes, columns, firstRow, count, destination, stride),
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
    /// Rows of a word are read together, and eight columns before they are written: neither the words of columns nor the codes of rows are near each other.
    /// </summary>
    private static void ReadRun(TensorView codes, int columns, long firstRow, int rows, Span<byte> destination, int stride)
    {
        const int AtOnce = sizeof(ulong);
        long wordsOfColumn = codes.Columns;
        Span<uint> words = stackalloc uint[AtOnce];
        for (int done = 0; done < rows;)
        {
            long word = (firstRow + done) / PerWord;
            ReadOnlySpan<int> wanted = nibbles.AsSpan((int)((firstRow + done) % PerWord));
            wanted = wanted[..Math.Min(wanted.Length, rows - done)];
            for (int column = 0; column < columns; column += AtOnce)
            {
                Span<uint> read = words[..Math.Min(AtOnce, columns - column)];
                for (int i = 0; i < read.Length; i++, word += wordsOfColumn)
                {
                    read[i] = codes.Word(word);
                }
                for (int row = 0; row < wanted.Length; row++)
                {
                    ulong eight = 0;
                    for (int i = read.Length - 1; i >= 0; i--)
                    {
                        eight = eight << 8 | (read[i] >> (Bits * wanted[row]) & 15);
                    }
                    Span<byte> target = destination.Slice((done + row) * stride + column, read.Length);
                    if (target.Length == AtOnce)
                    {
                        BinaryPrimitives.WriteUInt64LittleEndian(target, eight);
                        continue;
                    }
                    for (int i = 0; i < target.Length; i++, eight >>= 8)
                    {
                        target[i] = (byte)eight;
                    }
                }
            }
            done += wanted.Length;
        }
    }

    /// <summary>
    /// A name of a list is a module's where it is one or several of its words. Some tools spare whatever the text is found in, "gate" in "gate_proj" too, and
    /// others do not: which they did, the tensors say.
    /// </summary>
    private static bool IsPartOf(string part, string module) => $".{module}.".Contains($".{part}.", StringComparison.Ordinal);
}
