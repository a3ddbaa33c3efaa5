using System.Collections.Immutable;
using System.Runtime.Intrinsics;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>One weight matrix, packed in panels of 16 output rows. Rows past the last are zero.</summary>
internal abstract unsafe class PackedMatrix : IDisposable
{
    private const int MostTokensOfBatch = 64;

    private readonly PanelLayout layout;
    private readonly PanelMemory memory;

    /// <param name="rows">Output rows.</param>
    /// <param name="inputs">Columns.</param>
    /// <param name="panelBytes">Bytes of each panel, a multiple of 64.</param>
    protected PackedMatrix(int rows, int inputs, long panelBytes)
        : this(rows, inputs, new PanelLayout(PanelsOf(rows), panelBytes))
    {
    }

    /// <param name="rows">Output rows.</param>
    /// <param name="inputs">Columns.</param>
    /// <param name="layout">Where panels lie.</param>
    protected PackedMatrix(int rows, int inputs, PanelLayout layout)
    {
        Rows = rows;
        Inputs = inputs;
        this.layout = layout;
        memory = new PanelMemory(layout.Bytes);
    }

    /// <summary>Output rows.</summary>
    public int Rows { get; }

    /// <summary>Columns.</summary>
    public int Inputs { get; }

    /// <summary>Panels of 16 rows.</summary>
    public int Panels => layout.Panels;

    /// <summary>Where the matrix' rows start in the output of its plan.</summary>
    public int FirstOutput { get; init; }

    /// <summary>[columns]: which input meets each column as it is packed; empty where they are in order. Only of matrices that read <see cref="ActivationForms.Blocks"/>.</summary>
    public ImmutableArray<int> Order { get; init; } = [];

    /// <summary>Which of the orders of <see cref="BlockActivations"/> the matrix reads.</summary>
    public int ActivationOrder { get; set; }

    /// <summary>[rows] float32 that are added to the product, or null.</summary>
    public float[]? Bias { get; set; }

    /// <summary>Bytes held.</summary>
    public long Bytes => memory.Bytes + layout.TableBytes + (Bias?.Length ?? 0) * sizeof(float);

    /// <summary>What is held, for people: <c>int4, a scale per 128, 2:4</c>.</summary>
    public abstract string Form { get; }

    /// <summary>The form in which the kernels read activations; it may change with <see cref="Instructions"/>.</summary>
    public abstract ActivationForms Reads { get; }

    /// <summary>The kernels to use; every set gives the same bits.</summary>
    public abstract MatmulInstructions Instructions { set; }

    /// <summary>Reads rows of the tensor into a panel. Several threads pack different panels at once.</summary>
    /// <param name="source">The tensor and which of its rows, already checked against the plan.</param>
    /// <param name="panel">Which panel.</param>
    public abstract void Pack(WeightRows source, int panel);

    /// <summary>Multiplies a run of panels with all tokens of a job.</summary>
    public abstract void Multiply(in MultiplyJob job, int thread, int firstPanel, int endPanel);

    /// <summary>Decodes one row.</summary>
    public abstract void DecodeRow(int row, Span<float> destination);

    /// <inheritdoc/>
    public void Dispose() => memory.Dispose();

    /// <summary>Panels that are best multiplied together with so many tokens.</summary>
    protected abstract int PanelsTogether(int tokens);

    /// <summary>Panels of so many rows.</summary>
    public static int PanelsOf(int rows) => (rows + Panel.Rows - 1) / Panel.Rows;

    /// <summary>What lies before the panels.</summary>
    protected byte* BeforePanels => memory.Address;

    /// <summary>The first byte of a panel.</summary>
    protected byte* PanelAddress(int panel) => memory.Address + layout.Start(panel);

    /// <summary>Bytes of a panel, a multiple of 64.</summary>
    protected long PanelBytes(int panel) => layout.Size(panel);

    /// <summary>Panels that a work item of a job should have.</summary>
    public int ItemPanels(int tokens, int threads)
    {
        if (threads == 1)
        {
            return Math.Max(Panels, 1);
        }
        // About eight items per thread level out what threads are slowed down by; an item should outlast the taking of it many times. With a batch of tokens
        // an item takes longer, and with it the wait for the last one; with a prompt the caches want to see several panels at a time.
        const long Smallest = 64 << 10, Largest = 512 << 10;
        bool batch = tokens is > 8 and <= MostTokensOfBatch;
        long bytes = Math.Clamp(
            layout.Bytes / (threads * 8), Smallest / Math.Max(1, Math.Min(tokens, 16)), batch ? Largest * 8 / tokens : Largest);
        int together = PanelsTogether(tokens), panels = (int)Math.Clamp(bytes * Panels / Math.Max(layout.Bytes, 1), 1, Math.Max(Panels, 1));
        return (panels + together - 1) / together * together;
    }

    /// <summary>Hands finished sums to the output: adds the bias, and the output itself where the job accumulates.</summary>
    /// <param name="job">The job.</param>
    /// <param name="sums">[tokens, panels, 16].</param>
    /// <param name="firstToken">Token of the first sum.</param>
    /// <param name="tokens">Tokens of <paramref name="sums"/>.</param>
    /// <param name="panel">First panel.</param>
    /// <param name="panels">Panels of <paramref name="sums"/>.</param>
    protected void Finish(in MultiplyJob job, float* sums, int firstToken, int tokens, int panel, int panels)
    {
        int stride = job.OutputStride, firstRow = panel * Panel.Rows;
        int rows = Math.Min(panels * Panel.Rows, Rows - firstRow);
        fixed (float* bias = Bias)
        {
            for (int token = 0; token < tokens; token++, sums += panels * Panel.Rows)
            {
                float* output = job.Output + (long)(firstToken + token) * stride + FirstOutput + firstRow;
                int row = 0;
                for (; row <= rows - Vector256<float>.Count; row += Vector256<float>.Count)
                {
                    Vector256<float> value = Vector256.Load(sums + row);
                    if (bias != null)
                    {
                        value += Vector256.Load(bias + firstRow + row);
                    }
                    if (job.Accumulate)
                    {
                        value += Vector256.Load(output + row);
                    }
                    value.Store(output + row);
                }
                for (; row < rows; row++)
                {
                    float value = sums[row];
                    if (bias != null)
                    {
                        value += bias[firstRow + row];
                    }
                    output[row] = job.Accumulate ? value + output[row] : value;
                }
            }
        }
    }
}
