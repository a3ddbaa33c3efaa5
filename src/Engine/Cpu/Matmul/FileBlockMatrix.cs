using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>A matrix whose file has blocks of codes and scales together (formats.md §2.1).</summary>
internal sealed unsafe class FileBlockMatrix<TFormat, TCodes, TScales>(int rows, int inputs, KeptCodes? kept = null)
    : BlockMatrix<TCodes, TScales>(rows, inputs, TFormat.OffsetShift, kept)
    where TFormat : IBlockFormat
    where TCodes : ICodes
    where TScales : IFileScales
{
    public override string Form => $"{TFormat.DType}{ZerosLeftOut}";

    public override void Pack(WeightRows source, int panel)
    {
        TensorView tensor = source.Tensor;
        PanelCursor cursor = Start(panel);
        const int UnitInputs = 8 * ActivationLayout.BlockInputs;
        int inputs = TScales.BlocksPerUnit * ActivationLayout.BlockInputs;
        int blockBytes = tensor.DType.Info().BlockBytes;
        int rows = Math.Min(Panel.Rows, Rows - panel * Panel.Rows);
        byte* read = stackalloc byte[UnitInputs];
        byte* gathered = stackalloc byte[Panel.Rows * UnitInputs];
        new Span<byte>(gathered, Panel.Rows * UnitInputs).Fill((byte)(TFormat.OffsetShift == 0 ? 0 : 1 << TFormat.OffsetShift)); // Rows past the last.
        byte* first = (byte*)tensor.Address + source.Row(panel * Panel.Rows) * tensor.RowBytes;
        long rowStep = tensor.RowBytes * source.RowStep;
        for (int row = 0; row < rows; row++)
        {
            tensor.RequireFinite(source.Row(panel * Panel.Rows + row));
        }
        for (int unit = 0; unit < BlockCount / TScales.BlocksPerUnit; unit++)
        {
            EnterBlock(ref cursor, unit * TScales.BlocksPerUnit);
            byte* scales = ScaleUnit(cursor, unit * TScales.BlocksPerUnit);
            new Span<byte>(scales, TScales.UnitBytes).Clear(); // Rows past the last have none.
            for (int row = 0; row < rows; row++)
            {
                byte* block = first + row * rowStep + unit * (long)blockBytes;
                TScales.Pack(block, scales, row);
                TFormat.ReadCodes(block, read);
                for (int i = 0; i < TScales.BlocksPerUnit; i++)
                {
                    byte* target = gathered + (i * Panel.Rows + row) * ActivationLayout.BlockInputs;
                    Buffer.MemoryCopy(read + i * ActivationLayout.BlockInputs, target, ActivationLayout.BlockInputs, ActivationLayout.BlockInputs);
                }
            }
            for (int i = 0; i < TScales.BlocksPerUnit; i++)
            {
                cursor.Codes = PackBlock(source, panel, gathered + i * Panel.Rows * ActivationLayout.BlockInputs, cursor.Codes);
            }
        }
    }
}
