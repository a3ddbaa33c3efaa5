using System.Buffers;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>How the codes and scales of a <see cref="CodedMatrix"/> are brought to those of a <see cref="CodedBlockMatrix{TCodes, TScales}"/>.</summary>
/// <param name="OffsetShift">log₂ of the offset of the packed codes, 0 for none.</param>
/// <param name="MovesCodes">Zero points go into the codes, so that each stands for zero where it is the offset; otherwise they make minima.</param>
/// <param name="Multiplier">What scales are multiplied with, a power of two.</param>
/// <param name="Factor">The factor of <see cref="SmallFloatScales"/>.</param>
internal readonly record struct CodePacking(int OffsetShift, bool MovesCodes, float Multiplier = 1, float Factor = 1)
{
    /// <summary>The packed code of zero.</summary>
    public int Offset => OffsetShift == 0 ? 0 : 1 << OffsetShift;

    /// <summary>Brings the codes of a row to those that are packed.</summary>
    /// <param name="codes">The row.</param>
    /// <param name="zeros">Its zero points.</param>
    /// <param name="groupColumns">Codes of a zero point.</param>
    public void Move(Span<byte> codes, ReadOnlySpan<int> zeros, int groupColumns)
    {
        if (!MovesCodes)
        {
            return;
        }
        for (int group = 0; codes.Length > 0; group++)
        {
            int by = Offset - zeros[group];
            Span<byte> moved = codes[..Math.Min(groupColumns, codes.Length)];
            foreach (ref byte code in moved)
            {
                code = (byte)(code + by);
            }
            codes = codes[moved.Length..];
        }
    }
}

/// <summary>A matrix whose file has codes and the scales of groups apart from each other. Columns are in the order of the file's places.</summary>
internal sealed unsafe class CodedBlockMatrix<TCodes, TScales>(int rows, int inputs, CodePacking packing, KeptCodes? kept = null)
    : BlockMatrix<TCodes, TScales>(rows, inputs, packing.OffsetShift, kept)
    where TCodes : ICodes
    where TScales : IGroupScales
{
    public override string Form =>
        $"{(TCodes.Table != 0 ? "fp" : "int")}{TCodes.Bits}, a scale{(TScales.HasMinimum ? " and a zero point" : "")} per {TScales.GroupInputs}"
        + (Order.IsEmpty ? "" : ", columns in an order of their own") + ZerosLeftOut;

    /// <summary>Codes of all 16 rows are read before they are packed: in files with the outputs side by side, these share their cache lines.</summary>
    public override void Pack(WeightRows source, int panel)
    {
        CodedMatrix coded = source.Tensor.Coded!;
        int rows = Math.Min(Panel.Rows, Rows - panel * Panel.Rows), width = BlockCount * ActivationLayout.BlockInputs;
        byte[] codes = ArrayPool<byte>.Shared.Rent(Panel.Rows * width);
        float[] scales = ArrayPool<float>.Shared.Rent(Panel.Rows * coded.Groups);
        int[] zeros = ArrayPool<int>.Shared.Rent(Panel.Rows * coded.Groups);
        Array.Fill(codes, (byte)packing.Offset); // Rows and columns past the last are zeros.
        Array.Fill(zeros, coded.Zero ?? 0, 0, rows * coded.Groups);
        source.ReadCodes(panel * Panel.Rows, rows, codes, width);
        for (int row = 0; row < rows; row++)
        {
            Span<int> rowZeros = zeros.AsSpan(row * coded.Groups, coded.Groups);
            coded.ReadScales(source.Row(panel * Panel.Rows + row), scales.AsSpan(row * coded.Groups, coded.Groups), rowZeros);
            packing.Move(codes.AsSpan(row * width, Inputs), rowZeros, coded.GroupColumns);
        }
        byte* gathered = stackalloc byte[Panel.Rows * ActivationLayout.BlockInputs];
        PanelCursor cursor = Start(panel);
        for (int block = 0; block < BlockCount; block++)
        {
            EnterBlock(ref cursor, block);
            if (block % TScales.BlocksPerUnit == 0)
            {
                byte* unit = ScaleUnit(cursor, block);
                new Span<byte>(unit, TScales.UnitBytes).Clear(); // Rows past the last have none.
                for (int row = 0; row < rows; row++)
                {
                    StoreScales(unit, row, block, scales.AsSpan(row * coded.Groups, coded.Groups), zeros.AsSpan(row * coded.Groups, coded.Groups), coded.GroupColumns);
                }
            }
            for (int row = 0; row < Panel.Rows; row++)
            {
                codes.AsSpan(row * width + block * ActivationLayout.BlockInputs, ActivationLayout.BlockInputs)
                    .CopyTo(new Span<byte>(gathered + row * ActivationLayout.BlockInputs, ActivationLayout.BlockInputs));
            }
            cursor.Codes = PackBlock(source, panel, gathered, cursor.Codes);
        }
        ArrayPool<byte>.Shared.Return(codes);
        ArrayPool<float>.Shared.Return(scales);
        ArrayPool<int>.Shared.Return(zeros);
    }

    public override void DecodeRow(int row, Span<float> destination)
    {
        if (Order.IsEmpty)
        {
            base.DecodeRow(row, destination);
            return;
        }
        float[] places = ArrayPool<float>.Shared.Rent(Inputs);
        base.DecodeRow(row, places.AsSpan(0, Inputs));
        for (int place = 0; place < Inputs; place++)
        {
            destination[Order[place]] = places[place];
        }
        ArrayPool<float>.Shared.Return(places);
    }

    /// <summary>Stores the scales of a row in the unit that begins with a block.</summary>
    private void StoreScales(byte* unit, int row, int block, ReadOnlySpan<float> scales, ReadOnlySpan<int> zeros, int groupColumns)
    {
        int input = block * ActivationLayout.BlockInputs;
        for (int group = 0; group < TScales.BlocksPerUnit * ActivationLayout.BlockInputs / TScales.GroupInputs && input < Inputs; group++, input += TScales.GroupInputs)
        {
            int stored = input / groupColumns;
            int zero = TScales.HasMinimum ? zeros[stored] - packing.Offset : 0;
            TScales.Store(unit, group, row, scales[stored] * packing.Multiplier, zero, packing.Factor);
        }
    }
}
