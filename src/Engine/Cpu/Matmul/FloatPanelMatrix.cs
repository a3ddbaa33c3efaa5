using System.Runtime.CompilerServices;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul;

/// <summary>
/// A matrix that meets float activations. Four panels are packed as one group [steps, 4, 16, inputs of a step] (the last group may be narrower): a kernel needs
/// several panels at once to hide the latency of additions, and reads them as one stream. Sums are float32, and so are activations unless they are to be
/// rounded to bfloat16. Derived classes pack it.
/// </summary>
internal abstract unsafe class FloatPanelMatrix<TFormat> : PackedMatrix
    where TFormat : IFloatFormat
{
    /// <summary>Panels of a group.</summary>
    protected const int GroupPanels = 4;

    /// <summary>Bytes of the scales of a panel.</summary>
    protected const int ScaleBytes = Panel.Rows * sizeof(float);

    // Inputs of a pass with several token tiles: two panels of them stay in the first-level cache while the tiles pass over.
    private const int TileChunk = 256;

    private readonly KernelPointer[,,] kernels = new KernelPointer[GroupPanels + 1, GroupPanels + 1, FloatKernel.MaxTokens + 1];
    private readonly bool roundsActivations;
    private readonly int scaleInputs;
    private ActivationForms reads;

    /// <param name="rows">Output rows.</param>
    /// <param name="inputs">Columns.</param>
    /// <param name="scaleInputs">So many inputs, whole steps or all, are followed by their scales, float32 [panels of the group, 16]; 0 for none.</param>
    /// <param name="roundsActivations">Activations are rounded to bfloat16; only for weights of that type.</param>
    protected FloatPanelMatrix(int rows, int inputs, int scaleInputs = 0, bool roundsActivations = false)
        : base(rows, inputs, StepsBytes(inputs) + (scaleInputs == 0 ? 0 : (inputs + scaleInputs - 1) / scaleInputs * (long)ScaleBytes))
    {
        this.scaleInputs = scaleInputs;
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

    /// <summary>What <see cref="IFloatFormat.Widen"/> and the kernels are given; null for formats that need none.</summary>
    protected virtual float* Table => null;

    /// <summary>Bytes of a step of a panel.</summary>
    protected static int StepBytes => Panel.Rows * TFormat.StepBytes;

    protected override int PanelsTogether(int tokens) => FloatKernel.PanelsFor(new TokenTiles(tokens, FloatKernel.MaxTokens).Size(0));

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
            destination[input] = TFormat.Widen(Address(panel, input) + half * TFormat.StepBytes, input % TFormat.StepInputs, Table)[row % 8];
        }
    }

    /// <summary>Bytes of the steps of a panel, a multiple of 64.</summary>
    protected static long StepsBytes(int inputs) => ((inputs + TFormat.StepInputs - 1) / TFormat.StepInputs * (long)StepBytes + 63) & ~63L;

    /// <summary>Panels of the group that a panel belongs to.</summary>
    protected int Width(int panel) => Math.Min(GroupPanels, Panels - panel / GroupPanels * GroupPanels);

    /// <summary>The first byte of the group that a panel belongs to.</summary>
    protected byte* GroupAddress(int panel) => PanelAddress(panel / GroupPanels * GroupPanels);

    /// <summary>The step of a panel that an input belongs to.</summary>
    protected byte* Address(int panel, int input) =>
        GroupAddress(panel) + ((long)(input / TFormat.StepInputs) * Width(panel) + panel % GroupPanels) * StepBytes
        + (scaleInputs == 0 ? 0 : input / scaleInputs * (long)Width(panel) * ScaleBytes);

    /// <summary>Multiplies some panels of a group with all tokens.</summary>
    protected virtual void Multiply(in MultiplyJob job, TokenTiles tiles, int thread, int panel, int panels)
    {
        int rows = panels * Panel.Rows;
        float* sums = (float*)job.Team.ThreadScratch(thread, (nuint)job.Tokens * (nuint)rows * sizeof(float));
        new Span<float>(sums, job.Tokens * rows).Clear();
        Accumulate(job, tiles, panel, panels, 0, Inputs, sums);
        Finish(job, sums, 0, job.Tokens, panel, panels);
    }

    /// <summary>Adds the products of a run of inputs, which begins and ends with steps or the row, to sums [tokens, panels, 16].</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    protected void Accumulate(in MultiplyJob job, TokenTiles tiles, int panel, int panels, int firstInput, int endInput, float* sums)
    {
        int rows = panels * Panel.Rows, chunk = tiles.Count == 1 ? Inputs : TileChunk;
        KernelArguments arguments = default;
        arguments.StepStride = Width(panel) * StepBytes;
        arguments.Scales = Table;
        uint* activations = job.Words(reads);
        long tokenWords = FloatActivations.TokenWords(Inputs, reads);
        int wordsPerStep = reads == ActivationForms.Pairs ? 1 : TFormat.StepInputs;
        for (int input = firstInput; input < endInput; input += chunk)
        {
            arguments.Weights = Address(panel, input);
            arguments.Count = (Math.Min(chunk, endInput - input) + TFormat.StepInputs - 1) / TFormat.StepInputs;
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
    }
}
