using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>A matrix whose file has blocks of codes and scales together (formats.md §2.1).</summary>
internal sealed unsafe class FileBlockMatrix<TFormat, TCodes, TScales>(int rows, int inputs) : BlockMatrix<TCodes, TScales>(rows, inputs, TFormat.OffsetShift)
    where TFormat : IBlockFormat
    where TCodes : ICodes
    where TScales : IFileScales
{
    public override string Form => TCodes.Sparse ? $"{TFormat.DType}, 2:4" : $"{TFormat.DType}";

    public override void Pack(WeightRows source, int panel)
    {
        TensorView tensor = source.Tensor;
        byte* scales = ClearScales(panel), codes = CodesOf(panel);
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
            for (int row = 0; row < rows; row++)
            {
                byte* block = first + row * rowStep + unit * (long)blockBytes;
                TScales.Pack(block, scales + unit * TScales.UnitBytes, row);
                TFormat.ReadCodes(block, read);
                for (int i = 0; i < TScales.BlocksPerUnit; i++)
                {
                    byte* target = gathered + (i * Panel.Rows + row) * ActivationLayout.BlockInputs;
                    Buffer.MemoryCopy(read + i * ActivationLayout.BlockInputs, target, ActivationLayout.BlockInputs, ActivationLayout.BlockInputs);
                }
            }
            for (int i = 0; i < TScales.BlocksPerUnit; i++)
            {
                TCodes.Pack(gathered + i * Panel.Rows * ActivationLayout.BlockInputs, codes);
                codes += CodeBytes;
            }
        }
    }
}
