using Engine.Checkpoints;
using Engine.Checkpoints.Codecs;
using Engine.Checkpoints.Coded;

namespace Engine.Bench;

/// <summary>Matrices of random codes under finite scales: speed does not depend on what they are.</summary>
internal static class RandomMatrix
{
    /// <summary>The blocks of so many elements, in any format of GGUF.</summary>
    public static byte[] Blocks(DType format, long elements)
    {
        DTypeInfo info = format.Info();
        var bytes = new byte[elements / info.BlockElements * info.BlockBytes];
        Random.Shared.NextBytes(bytes);
        for (int block = 0; block < bytes.Length; block += info.BlockBytes)
        {
            SetScales(format, bytes.AsSpan(block, info.BlockBytes));
        }
        return bytes;
    }

    /// <summary>A coded matrix. Rows repeat a random run of codes from different places on.</summary>
    public static TensorView Coded(CodedShape shape, int rows, int columns, MemoryCheckpoint checkpoint)
    {
        var run = new byte[2 * columns];
        Random.Shared.NextBytes(run);
        foreach (ref byte code in run.AsSpan())
        {
            code = (byte)(code & (1 << shape.Bits) - 1);
            code = shape.Numbers == CodeNumbers.E4M3 && (code & 0x7F) == 0x7F ? (byte)0 : code; // The one that is no number.
        }
        var order = Enumerable.Range(0, columns).ToArray();
        Random.Shared.Shuffle(order);
        long groups = (columns + shape.GroupColumns - 1) / shape.GroupColumns, codes = (long)rows * columns * shape.Bits / 8, scaleBytes = ScaleBytes(shape);
        return TensorView.Of(new StoredMatrix
        {
            Name = "w",
            Format = "bench",
            Rows = rows,
            Columns = columns,
            Bits = shape.Bits,
            Numbers = shape.Numbers,
            Table = shape.Numbers == CodeNumbers.Table ? [.. Enumerable.Range(0, 16).Select(static code => (code - 8) / 8f)] : CodeTables.Of(shape.Numbers),
            GroupColumns = shape.GroupColumns,
            Zero = shape.Zeros ? null : shape.Numbers == CodeNumbers.Integer ? 1 << (shape.Bits - 1) : 0,
            Order = shape.Ordered ? [.. order] : [],
            Codes = (row, target) => run.AsSpan((int)(row * 61 % columns), columns).CopyTo(target),
            Scales = (row, scales, zeros) =>
            {
                for (int group = 0; group < scales.Length; group++)
                {
                    scales[group] = Scale(shape, (int)(row * 7 + group * 3) & 127);
                }
                for (int group = 0; group < zeros.Length && shape.Zeros; group++)
                {
                    zeros[group] = (int)(row + group) & (1 << shape.Bits) - 1;
                }
            },
            Parts = [checkpoint.Add("codes", DType.U8, [codes + rows * groups * scaleBytes], new byte[codes + rows * groups * scaleBytes])],
        }, checkpoint);
    }

    /// <summary>Bytes of a scale as files have them.</summary>
    private static int ScaleBytes(CodedShape shape) => (shape.Numbers, shape.GroupColumns) switch
    {
        (CodeNumbers.E2M1, _) => 1,
        (CodeNumbers.Integer, _) => 2,
        _ => 4,
    };

    /// <summary>A scale that files of the kind may have: a power of two, an 8-bit float, or a bfloat16.</summary>
    private static float Scale(CodedShape shape, int number) => (shape.Numbers, shape.GroupColumns) switch
    {
        (CodeNumbers.E2M1, 32) => MathF.ScaleB(1, number % 8 - 10),
        (CodeNumbers.E2M1, _) => CodeTables.Of(CodeNumbers.E4M3)[0x20 + number % 32] / 448,
        _ => MathF.ScaleB(1 + number / 128f, -8),
    };

    private static void SetScales(DType format, Span<byte> block)
    {
        const ushort Half = 0x1C00, BFloat = 0x3C00;
        switch (format)
        {
            case DType.F32 or DType.BF16:
                BitConverter.TryWriteBytes(block[^2..], BFloat);
                break;
            case DType.MXFP4:
                block[0] = 120;
                break;
            case DType.NVFP4:
                block[..NVFP4Format.Groups].Fill(0x38);
                break;
            case DType.IQ1_M:
                foreach (ref byte part in block[^8..])
                {
                    part &= 0x1F; // The scale is spread over upper nibbles.
                }
                break;
            default:
                int[] offsets = format switch
                {
                    DType.F16 => [0],
                    DType.Q6_K => [208],
                    DType.Q2_K => [Q2_KFormat.ScaleOffset, Q2_KFormat.MinimumOffset],
                    DType.Q3_K => [Q3_KFormat.ScaleOffset],
                    DType.TQ1_0 => [block.Length - 2],
                    DType.TQ2_0 => [TQ2_0Format.ScaleOffset],
                    DType.Q4_1 or DType.Q5_1 or DType.Q4_K or DType.Q5_K => [0, 2],
                    _ => [0],
                };
                foreach (int offset in offsets)
                {
                    BitConverter.TryWriteBytes(block[offset..], Half);
                }
                break;
        }
    }
}
