using System.Runtime.Intrinsics;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// A matrix of plain floats, elements as in the file. Four panels are packed as one group [steps, 4, 16, inputs of a step] (the last group may be
/// narrower): a kernel needs several panels at once to hide the latency of additions, and reads them as one stream. Sums are float32, and so are
/// activations unless they are to be rounded to bfloat16.
/// </summary>
internal sealed unsafe class FloatMatrix<TFormat> : PackedMatrix
    where TFormat : IFloatFormat
{
    // Inputs of a pass with several token tiles: two panels of them stay in the first-level cache while the tiles pass over.
    private const int TileChunk = 256;
    private const int GroupPanels = 4;

    private readonly KernelPointer[,,] kernels = new KernelPointer[GroupPanels + 1, GroupPanels + 1, FloatKernel.MaxTokens + 1];

    private readonly bool roundsActivations;
    private ActivationForms reads;

    /// <param name="rows">Output rows.</param>
    /// <param name="inputs">Columns.</param>
    /// <param name="roundsActivations">Activations are rounded to bfloat16; only for weights of that type.</param>
    public FloatMatrix(int rows, int inputs, bool roundsActivations = false)
        : base(rows, inputs, (long)((inputs + TFormat.StepInputs - 1) / TFormat.StepInputs) * StepBytes)
    {
        this.roundsActivations = roundsActivations;
        Instructions = MatmulInstructionSupport.Best;
    }

    public override ActivationForms Reads => reads;

    public override MatmulInstructions Instructions
    {
        set
        {
            reads = !roundsActivations ? ActivationForms.Floats
                : value == MatmulInstructions.Avx512Bf16 ? ActivationForms.Pairs : ActivationForms.RoundedFloats;
            // All groups but the last have full width.
            Span<int> widths = [Panels >= GroupPanels ? GroupPanels : 0, Panels % GroupPanels];
            foreach (int width in widths)
            {
                for (int tokens = 1; tokens <= FloatKernel.MaxTokens; tokens++)
                {
                    for (int panels = 1; panels <= Math.Min(width, FloatKernel.PanelsFor(tokens)); panels *= 2)
                    {
                        kernels[width, panels, tokens] = KernelPointer.For<TFormat>(new FloatKernel(TFormat.DType, width, panels, tokens, reads), value);
                    }
                }
            }
        }
    }

    protected override int PanelsTogether(int tokens) => FloatKernel.PanelsFor(new TokenTiles(tokens, FloatKernel.MaxTokens).Size(0));

    private static int StepBytes => Panel.Rows * TFormat.StepInputs * TFormat.Bytes;

    public override void Pack(WeightRows source, int panel)
    {
        TensorView tensor = source.Tensor;
        bool transposed = source.Transposed;
        long storedStep = transposed ? TFormat.Bytes : tensor.RowBytes, inputStep = transposed ? tensor.RowBytes : TFormat.Bytes;
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
                if (TFormat.Bytes == 4)
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

    public override void Multiply(in MultiplyJob job, int thread, int firstPanel, int endPanel)
    {
        var tiles = new TokenTiles(job.Tokens, FloatKernel.MaxTokens);
        int most = FloatKernel.PanelsFor(tiles.Size(0));
        for (int panel = firstPanel; panel < endPanel;)
        {
            int panels = most;
            int end = Math.Min(endPanel, panel / GroupPanels * GroupPanels + GroupPanels);
            while (panels > end - panel)
            {
                panels /= 2;
            }
            Multiply(job, tiles, thread, panel, panels);
            panel += panels;
        }
    }

    public override void DecodeRow(int row, Span<float> destination)
    {
        int panel = row / Panel.Rows, half = row % Panel.Rows / 8 * 8;
        for (int input = 0; input < Inputs; input++)
        {
            byte* source = Address(panel, input) + half * TFormat.StepInputs * TFormat.Bytes;
            destination[input] = TFormat.Widen(source, input % TFormat.StepInputs)[row % 8];
        }
    }

    /// <summary>Panels of the group that a panel belongs to.</summary>
    private int Width(int panel) => Math.Min(GroupPanels, Panels - panel / GroupPanels * GroupPanels);

    /// <summary>The step of a panel that an input belongs to.</summary>
    private byte* Address(int panel, int input) =>
        PanelAddress(panel / GroupPanels * GroupPanels) + ((long)(input / TFormat.StepInputs) * Width(panel) + panel % GroupPanels) * StepBytes;

    private void Multiply(in MultiplyJob job, TokenTiles tiles, int thread, int panel, int panels)
    {
        int rows = panels * Panel.Rows, chunk = tiles.Count == 1 ? Inputs : TileChunk;
        float* sums = (float*)job.Team.ThreadScratch(thread, (nuint)job.Tokens * (nuint)rows * sizeof(float));
        new Span<float>(sums, job.Tokens * rows).Clear();
        KernelArguments arguments = default;
        arguments.StepStride = Width(panel) * StepBytes;
        uint* activations = job.Words(reads);
        long tokenWords = FloatActivations.TokenWords(Inputs, reads);
        int wordsPerStep = reads == ActivationForms.Pairs ? 1 : TFormat.StepInputs;
        for (int input = 0; input < Inputs; input += chunk)
        {
            arguments.Weights = Address(panel, input);
            arguments.Count = (Math.Min(chunk, Inputs - input) + TFormat.StepInputs - 1) / TFormat.StepInputs;
            long firstWord = input / TFormat.StepInputs * (long)wordsPerStep;
            for (int tile = 0; tile < tiles.Count; tile++)
            {
                int first = tiles.First(tile), tokens = tiles.Size(tile);
                arguments.Activations = (byte*)(activations + first * tokenWords + firstWord * tokens);
                arguments.Accumulators = sums + first * rows;
                arguments.Kernel = default(BlockKernel) with { Panels = panels, Tokens = tokens };
                kernels[Width(panel), panels, tokens].Run(&arguments);
            }
        }
        Finish(job, sums, 0, job.Tokens, panel, panels);
    }
}
