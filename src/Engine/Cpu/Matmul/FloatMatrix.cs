using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>A matrix of plain floats, elements as in the file.</summary>
internal sealed unsafe class FloatMatrix<TFormat>(int rows, int inputs, bool roundsActivations = false)
    : FloatPanelMatrix<TFormat>(rows, inputs, roundsActivations: roundsActivations)
    where TFormat : IFloatFormat
{
    public override string Form => $"{TFormat.DType}";

    private static int ElementBytes => TFormat.StepBytes / TFormat.StepInputs;

    public override void Pack(WeightRows source, int panel)
    {
        TensorView tensor = source.Tensor;
        bool transposed = source.Transposed;
        long storedStep = transposed ? ElementBytes : tensor.RowBytes, inputStep = transposed ? tensor.RowBytes : ElementBytes;
        long rowStep = storedStep * source.RowStep;
        int rows = Math.Min(Panel.Rows, Rows - panel * Panel.Rows);
        for (int row = 0; row < rows && !transposed; row++)
        {
            tensor.RequireFinite(source.Row(panel * Panel.Rows + row));
        }
        byte* column = (byte*)tensor.Address + source.Row(panel * Panel.Rows) * storedStep;
        for (int input = 0; input < Inputs; input++, column += inputStep)
        {
            byte* step = Address(panel, input);
            int place = input % TFormat.StepInputs;
            if (place == 0)
            {
                new Span<byte>(step, StepBytes).Clear();
            }
            for (int row = 0; row < rows; row++)
            {
                int element = row * TFormat.StepInputs + TFormat.StepInputs - 1 - place;
                if (ElementBytes == 4)
                {
                    ((uint*)step)[element] = *(uint*)(column + row * rowStep);
                }
                else
                {
                    ((ushort*)step)[element] = *(ushort*)(column + row * rowStep);
                }
            }
        }
    }
}
