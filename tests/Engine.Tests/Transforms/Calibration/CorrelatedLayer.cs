namespace Engine.Tests.Transforms.Calibration;

/// <summary>A random matrix and rows that go into it, whose elements depend on each other and differ in size, as those of a trained model do.</summary>
internal sealed class CorrelatedLayer
{
    public CorrelatedLayer(Random random, int rows, int columns, int samples)
    {
        (Rows, Columns, Samples) = (rows, columns, samples);
        Weights = Cpu.TestRows.Normal(random, rows * columns);
        int causes = Math.Max(2, columns / 4);
        float[] loading = Cpu.TestRows.Normal(random, causes * columns), sizes = [.. Cpu.TestRows.Normal(random, columns).Select(static z => MathF.Exp(z / 2))];
        Inputs = new float[samples * columns];
        for (int sample = 0; sample < samples; sample++)
        {
            float[] hidden = Cpu.TestRows.Normal(random, causes), noise = Cpu.TestRows.Normal(random, columns, 0.3);
            for (int column = 0; column < columns; column++)
            {
                float sum = noise[column];
                for (int cause = 0; cause < causes; cause++)
                {
                    sum += hidden[cause] * loading[cause * columns + column] / MathF.Sqrt(causes);
                }
                Inputs[sample * columns + column] = sum * sizes[column];
            }
        }
    }

    public int Rows { get; }

    public int Columns { get; }

    public int Samples { get; }

    /// <summary>[rows, columns].</summary>
    public float[] Weights { get; }

    /// <summary>[samples, columns].</summary>
    public float[] Inputs { get; }

    /// <summary>Σ x·xᵀ in double precision, [columns, columns].</summary>
    public double[,] Moment()
    {
        var moment = new double[Columns, Columns];
        for (int sample = 0; sample < Samples; sample++)
        {
            for (int i = 0; i < Columns; i++)
            {
                for (int j = 0; j < Columns; j++)
                {
                    moment[i, j] += (double)Inputs[sample * Columns + i] * Inputs[sample * Columns + j];
                }
            }
        }
        return moment;
    }

    /// <summary>‖(W − Ŵ)·X‖² in double precision.</summary>
    public double Error(float[] compressed)
    {
        double error = 0;
        for (int sample = 0; sample < Samples; sample++)
        {
            for (int row = 0; row < Rows; row++)
            {
                double difference = 0;
                for (int column = 0; column < Columns; column++)
                {
                    int place = row * Columns + column;
                    difference += ((double)Weights[place] - compressed[place]) * Inputs[sample * Columns + column];
                }
                error += difference * difference;
            }
        }
        return error;
    }
}
