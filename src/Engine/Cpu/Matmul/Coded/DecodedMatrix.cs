using System.Buffers;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>A <see cref="CodedMatrix"/> that no kernel can read as codes, decoded to float32: the last resort, 4 bytes a weight.</summary>
internal sealed unsafe class DecodedMatrix(int rows, int inputs) : FloatPanelMatrix<Float32>(rows, inputs)
{
    public override string Form => "F32, decoded";

    public override void Pack(WeightRows source, int panel)
    {
        CodedMatrix coded = source.Tensor.Coded!;
        float[] rented = ArrayPool<float>.Shared.Rent(Inputs);
        Span<float> values = rented.AsSpan(0, Inputs);
        for (int row = 0; row < Panel.Rows; row++)
        {
            values.Clear();
            if (panel * Panel.Rows + row < Rows)
            {
                coded.RequireFinite(source.Row(panel * Panel.Rows + row));
                coded.DecodeRow(source.Row(panel * Panel.Rows + row), values);
            }
            for (int input = 0; input < Inputs; input++)
            {
                ((float*)Address(panel, input))[row] = values[input];
            }
        }
        ArrayPool<float>.Shared.Return(rented);
    }
}
