using System.Buffers;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// A matrix of 16-bit floats of which the elements that are zero are left out. Before the panels lie the masks (<see cref="MaskedFloatKernel"/>) of groups of four
/// of them, [pairs of inputs, 4] (the last group may be narrower); a panel is the elements that its masks have bits of, in their order. Few tokens are
/// multiplied where elements lie; for many, a run of inputs is written out as a dense matrix has it. Products have the bits of the dense matrix, but that
/// −0, the sum of products too small for float32, may become +0 at another place.
/// </summary>
internal sealed unsafe class MaskedFloatMatrix<TFormat> : PackedMatrix
    where TFormat : IFloatFormat
{
    private const int GroupPanels = 4;

    // Inputs that are written out at a time: two panels of them stay in the first-level cache while the tiles of tokens pass over.
    private const int ChunkInputs = 256;
    private const int ChunkPairs = ChunkInputs / MaskedFloatKernel.PairInputs;

    private readonly KernelPointer[,,] direct = new KernelPointer[GroupPanels + 1, GroupPanels + 1, FloatKernel.MaxTokens + 1];
    private readonly KernelPointer[,] expanding = new KernelPointer[GroupPanels + 1, GroupPanels + 1];
    private readonly KernelPointer[,] dense = new KernelPointer[GroupPanels + 1, FloatKernel.MaxTokens + 1];
    private readonly KeptElements kept;
    private readonly bool roundsActivations;
    private ActivationForms reads;
    private bool multipliesKept;

    /// <param name="rows">Output rows.</param>
    /// <param name="inputs">Columns.</param>
    /// <param name="kept">What is left of the matrix.</param>
    /// <param name="roundsActivations">Activations are rounded to bfloat16; only for weights of that type.</param>
    public MaskedFloatMatrix(int rows, int inputs, KeptElements kept, bool roundsActivations)
        : base(rows, inputs, Layout(inputs, kept))
    {
        this.kept = kept;
        this.roundsActivations = roundsActivations;
        Instructions = MatmulInstructionSupport.Best;
    }

    public override string Form => kept.TwoOfFour
        ? $"{TFormat.DType}, 2:4"
        : $"{TFormat.DType}, {Math.Round(100.0 * kept.Panels.Sum() / ((double)Rows * Inputs))} % kept";

    public override ActivationForms Reads => reads;

    public override MatmulInstructions Instructions
    {
        set
        {
            multipliesKept = value.ExpandsWords();
            reads = !roundsActivations ? ActivationForms.Floats
                : value == MatmulInstructions.Avx512Bf16 ? ActivationForms.Pairs : ActivationForms.RoundedFloats;
            Span<int> widths = [Panels >= GroupPanels ? GroupPanels : 0, Panels % GroupPanels];
            for (int tokens = 0; tokens <= FloatKernel.MaxTokens; tokens++)
            {
                for (int panels = 1; panels <= FloatKernel.PanelsFor(tokens); panels *= 2)
                {
                    foreach (int width in widths)
                    {
                        if (panels <= width && (tokens == 0 || multipliesKept))
                        {
                            (tokens == 0 ? ref expanding[width, panels] : ref direct[width, panels, tokens]) =
                                KernelPointer.For<TFormat>(new MaskedFloatKernel(TFormat.DType, width, panels, tokens, reads), value);
                        }
                    }
                    if (tokens > 0)
                    {
                        dense[panels, tokens] = KernelPointer.For<TFormat>(new FloatKernel(TFormat.DType, panels, panels, tokens, reads), value);
                    }
                }
            }
        }
    }

    public override void Pack(WeightRows source, int panel)
    {
        int rows = Math.Min(Panel.Rows, Rows - panel * Panel.Rows);
        ushort** elements = stackalloc ushort*[Panel.Rows];
        for (int row = 0; row < rows; row++)
        {
            long stored = source.Row(panel * Panel.Rows + row);
            source.Tensor.RequireFinite(stored);
            elements[row] = (ushort*)((byte*)source.Tensor.Address + stored * source.Tensor.RowBytes);
        }
        int count = 0;
        ushort[] buffer = ArrayPool<ushort>.Shared.Rent(rows * Inputs + 1);
        fixed (ushort* target = buffer)
        {
            uint* masks = Masks(panel);
            for (int input = 0; input < Inputs; input += MaskedFloatKernel.PairInputs, masks += Width(panel))
            {
                *masks = PackPair(elements, rows, input, target, ref count);
            }
        }
        if (count != kept.Panels[panel])
        {
            throw new EngineException(
                $"expected {kept.Panels[panel]} elements other than zero in a panel, as counted before, found {count}", source.Tensor.File(), source.Tensor.Name);
        }
        buffer.AsSpan(0, count).CopyTo(new Span<ushort>(PanelAddress(panel), count));
        ArrayPool<ushort>.Shared.Return(buffer);
    }

    public override void Multiply(in MultiplyJob job, int thread, int firstPanel, int endPanel)
    {
        var tiles = new TokenTiles(job.Tokens, FloatKernel.MaxTokens);
        int most = FloatKernel.PanelsFor(tiles.Size(0));
        for (int panel = firstPanel; panel < endPanel;)
        {
            int panels = most, end = Math.Min(endPanel, panel / GroupPanels * GroupPanels + GroupPanels);
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
        byte* steps = stackalloc byte[ChunkPairs * MaskedFloatKernel.PairBytes], next = PanelAddress(panel);
        KernelArguments arguments = default;
        arguments.Kept = &next;
        for (int input = 0; input < Inputs; input += ChunkInputs)
        {
            int count = Math.Min(ChunkInputs, Inputs - input);
            Expand(&arguments, panel, 1, input, count, steps);
            for (int i = 0; i < count; i++)
            {
                byte* step = steps + (i / TFormat.StepInputs * Panel.Rows + half) * TFormat.StepBytes;
                destination[input + i] = TFormat.Widen(step, i % TFormat.StepInputs, null)[row % 8];
            }
        }
    }

    protected override int PanelsTogether(int tokens) => FloatKernel.PanelsFor(new TokenTiles(tokens, FloatKernel.MaxTokens).Size(0));

    private static PanelLayout Layout(int inputs, KeptElements kept) =>
        new([.. kept.Panels.Select(static elements => elements * sizeof(ushort))], Pairs(inputs) * sizeof(uint) * kept.Panels.Length);

    private static long Pairs(int inputs) => (inputs + MaskedFloatKernel.PairInputs - 1) / MaskedFloatKernel.PairInputs;

    /// <summary>Appends what is not zero of a pair of inputs, writing up to one element past it, and returns the mask.</summary>
    private uint PackPair(ushort** rows, int count, int input, ushort* target, ref int end)
    {
        uint mask = 0;
        for (int bit = 0; bit < Panel.Rows * MaskedFloatKernel.PairInputs; bit++)
        {
            // Of a step of two inputs the second lies first; else the second is the next step.
            (int row, int place) = TFormat.StepInputs == 2 ? (bit / 2, 1 - bit % 2) : (bit % Panel.Rows, bit / Panel.Rows);
            ushort element = row < count && input + place < Inputs ? rows[row][input + place] : (ushort)0;
            int keeps = (element & 0x7FFF) == 0 ? 0 : 1;
            target[end] = element;
            end += keeps;
            mask |= (uint)keeps << bit;
        }
        return mask;
    }

    private void Multiply(in MultiplyJob job, TokenTiles tiles, int thread, int panel, int panels)
    {
        const int StepsBytes = GroupPanels * ChunkPairs * MaskedFloatKernel.PairBytes;
        int rows = panels * Panel.Rows;
        byte* steps = job.Team.ThreadScratch(thread, StepsBytes + (nuint)job.Tokens * (nuint)rows * sizeof(float));
        float* sums = (float*)(steps + StepsBytes);
        new Span<float>(sums, job.Tokens * rows).Clear();
        byte** next = stackalloc byte*[GroupPanels];
        for (int i = 0; i < panels; i++)
        {
            next[i] = PanelAddress(panel + i);
        }
        KernelArguments arguments = default;
        arguments.Kept = next;
        if (multipliesKept && tiles.Count == 1)
        {
            arguments.Weights = (byte*)Masks(panel);
            arguments.Activations = (byte*)job.Words(reads);
            arguments.Accumulators = sums;
            arguments.Count = Pairs(Inputs);
            direct[Width(panel), panels, job.Tokens].Run(&arguments);
        }
        else
        {
            MultiplyExpanded(job, tiles, &arguments, panel, panels, steps, sums);
        }
        Finish(job, sums, 0, job.Tokens, panel, panels);
    }

    private void MultiplyExpanded(in MultiplyJob job, TokenTiles tiles, KernelArguments* arguments, int panel, int panels, byte* steps, float* sums)
    {
        int rows = panels * Panel.Rows;
        uint* activations = job.Words(reads);
        long tokenWords = FloatActivations.TokenWords(Inputs, reads);
        int inputsPerWord = reads == ActivationForms.Pairs ? 2 : 1;
        for (int input = 0; input < Inputs; input += ChunkInputs)
        {
            int count = Math.Min(ChunkInputs, Inputs - input);
            Expand(arguments, panel, panels, input, count, steps);
            arguments->Weights = steps;
            arguments->StepStride = rows * TFormat.StepBytes;
            arguments->Count = (count + TFormat.StepInputs - 1) / TFormat.StepInputs;
            for (int tile = 0; tile < tiles.Count; tile++)
            {
                int first = tiles.First(tile), tokens = tiles.Size(tile);
                arguments->Activations = (byte*)(activations + first * tokenWords + input / inputsPerWord * (long)tokens);
                arguments->Accumulators = sums + first * rows;
                arguments->Kernel = default(BlockKernel) with { Panels = panels, Tokens = tokens };
                dense[panels, tokens].Run(arguments);
            }
        }
    }

    /// <summary>Writes a run of inputs of some panels out as a dense group of these; the kept elements of those before have been passed.</summary>
    private void Expand(KernelArguments* arguments, int panel, int panels, int input, int count, byte* steps)
    {
        int width = Width(panel);
        arguments->Weights = (byte*)(Masks(panel) + input / MaskedFloatKernel.PairInputs * (long)width);
        arguments->StepStride = width * sizeof(uint);
        arguments->Accumulators = (float*)steps;
        arguments->Count = Pairs(count);
        arguments->Kernel = default(BlockKernel) with { Panels = panels };
        expanding[width, panels].Run(arguments);
    }

    /// <summary>Panels of the group that a panel belongs to.</summary>
    private int Width(int panel) => Math.Min(GroupPanels, Panels - panel / GroupPanels * GroupPanels);

    /// <summary>The first mask of a panel; the next is as many further as its group has panels.</summary>
    private uint* Masks(int panel)
    {
        long group = panel / GroupPanels * GroupPanels * Pairs(Inputs);
        return (uint*)BeforePanels + group + panel % GroupPanels;
    }
}
