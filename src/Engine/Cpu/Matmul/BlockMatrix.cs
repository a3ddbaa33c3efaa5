using System.Globalization;
using System.Runtime.CompilerServices;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// A matrix of codes and scales of blocks of 32 inputs. A panel is sections, each the scales of a run of blocks and then the codes of these one after another, in
/// the order in which they are needed: multiplying one token reads memory strictly forward, which the hardware prefetcher follows. The packed copy has the bits of the file and hardly more, but that vectors of codebooks are written out: what is unpacked lives
/// in tiles of cache size. Derived classes pack it.
/// </summary>
internal abstract unsafe class BlockMatrix<TCodes, TScales> : PackedMatrix
    where TCodes : ICodes
    where TScales : IScales
{
    // Blocks of a section. Short ones keep the reading of scales near that of codes; measured, 8 and 32 are hardly slower, and 64 loses up to 10 %.
    private const int SectionBlocks = 16;

    // A tile of 2 panels × 16 blocks × 512 bytes, with its scales and the activations of a token tile, fits the first-level cache.
    private const int TilePanels = 2;

    // Panels that pass over a chunk of the activations before the next chunk is begun, so that the second-level cache gives it several times.
    private const int GroupPanels = 8;

    private readonly int blocks;
    private readonly int offsetShift;
    private readonly double keptPart;
    private readonly KernelPointer[] direct = new KernelPointer[BlockKernel.MaxTokens + 1];
    private readonly KernelPointer[,] tiled = new KernelPointer[TilePanels + 1, BlockKernel.MaxTokens + 1];
    private MatmulInstructions instructions;

    /// <param name="rows">Output rows.</param>
    /// <param name="inputs">Columns; those that the last block has beyond them count nothing, whatever their codes.</param>
    /// <param name="offsetShift">log₂ of the offset of the unsigned codes, 0 for none.</param>
    /// <param name="kept">What is left of the codes where those of zero are left out, otherwise null.</param>
    protected BlockMatrix(int rows, int inputs, int offsetShift, KeptCodes? kept)
        : base(rows, inputs, Layout(rows, inputs, kept))
    {
        this.offsetShift = offsetShift;
        keptPart = kept?.Part ?? 1;
        blocks = ActivationLayout.Blocks(inputs);
        Instructions = MatmulInstructionSupport.Best;
    }

    public override ActivationForms Reads => ActivationForms.Blocks;

    public override MatmulInstructions Instructions
    {
        set
        {
            instructions = value;
            for (int tokens = 1; tokens <= BlockKernel.MaxTokens; tokens++)
            {
                direct[tokens] = KernelPointer.For(DirectKernel(tokens), value);
                for (int panels = 1; panels <= TilePanels && (tokens <= BlockKernel.MaxPairTokens || !Assembled); panels++)
                {
                    tiled[panels, tokens] = KernelPointer.For(TileKernel(panels, tokens), value);
                }
            }
        }
    }

    /// <summary>Blocks of a row.</summary>
    protected int BlockCount => blocks;

    private bool Assembled => instructions >= MatmulInstructions.Avx512Vnni;

    /// <summary>What is said of zeros in <see cref="PackedMatrix.Form"/>.</summary>
    protected string ZerosLeftOut => TCodes.Sparsity switch
    {
        CodeSparsity.TwoOfFour => ", 2:4",
        CodeSparsity.Unstructured => string.Create(CultureInfo.InvariantCulture, $", {100 * keptPart:F0} % kept"),
        _ => "",
    };

    private static int ScaleVectors => (TScales.HasMinimum ? 2 : 1) * (TScales.HalfBlocks ? 2 : 1);

    /// <summary>Bytes of the codes of a packed block of a panel.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int CodeBytes(byte* block) => BlockKernel.CodeBytes(TCodes.Bits, TCodes.Sparsity, block);

    /// <summary>Packs the codes [16, 32] of a block of a panel and says where the next goes.</summary>
    /// <exception cref="EngineException">There are more codes other than zero than were counted.</exception>
    protected byte* PackBlock(WeightRows source, int panel, byte* codes, byte* packed)
    {
        if (TCodes.Sparsity == CodeSparsity.Unstructured
            && packed + MaskedGroups.PackedBytes(codes, TCodes.Bits, (byte)(1 << offsetShift)) > PanelAddress(panel) + PanelBytes(panel))
        {
            throw new EngineException("the codes changed while they were read", item: source.Tensor.Name);
        }
        TCodes.Pack(codes, packed);
        return packed + CodeBytes(packed);
    }

    /// <summary>Where a panel has the scales and the codes of a block.</summary>
    protected struct PanelCursor
    {
        /// <summary>The scales of the block's section.</summary>
        public byte* Scales;

        /// <summary>The codes of the block.</summary>
        public byte* Codes;
    }

    /// <summary>The first block of a panel.</summary>
    protected PanelCursor Start(int panel) => new() { Codes = PanelAddress(panel) };

    /// <summary>At the first block of a section, steps over its scales.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    protected void EnterBlock(ref PanelCursor cursor, int block)
    {
        if (block % SectionBlocks == 0)
        {
            cursor.Scales = cursor.Codes;
            cursor.Codes += ScaleBytes(Math.Min(SectionBlocks, blocks - block));
        }
    }

    /// <summary>The unit of scales of a block of the section.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    protected static byte* ScaleUnit(in PanelCursor cursor, int block) => cursor.Scales + block % SectionBlocks / TScales.BlocksPerUnit * TScales.UnitBytes;

    public override void Multiply(in MultiplyJob job, int thread, int firstPanel, int endPanel)
    {
        TokenTiles tiles = BlockKernel.Tiles(job.Tokens);
        if (tiles.Count == 1 || (Assembled && tiles.Largest == BlockKernel.MaxTokens)) // Other kernels spend more on taking nibbles apart, and do it once.
        {
            for (int panel = firstPanel; panel < endPanel; panel++)
            {
                MultiplyDirect(job, tiles, thread, panel);
            }
            return;
        }
        int group = blocks > SectionBlocks ? GroupPanels : TilePanels;
        for (int panel = firstPanel; panel < endPanel; panel += group)
        {
            MultiplyTiled(job, tiles, thread, panel, Math.Min(panel + group, endPanel));
        }
    }

    public override void DecodeRow(int row, Span<float> destination)
    {
        PanelCursor cursor = Start(row / Panel.Rows);
        int lane = row % Panel.Rows;
        byte* groups = stackalloc byte[ActivationLayout.Groups * Panel.GroupBytes];
        float* unpacked = stackalloc float[8 * 4 * Panel.Rows];
        int halves = TScales.HalfBlocks ? 2 : 1;
        for (int block = 0; block < blocks; block++)
        {
            EnterBlock(ref cursor, block);
            int inUnit = block % TScales.BlocksPerUnit;
            if (inUnit == 0)
            {
                TScales.Unpack(ScaleUnit(cursor, block), unpacked, Panel.Rows, ScaleVectors * Panel.Rows);
            }
            TCodes.Unpack(cursor.Codes, groups, Panel.GroupBytes);
            cursor.Codes += CodeBytes(cursor.Codes);
            float* blockScales = unpacked + inUnit * ScaleVectors * Panel.Rows + lane;
            for (int i = 0; i < Math.Min(ActivationLayout.BlockInputs, Inputs - block * ActivationLayout.BlockInputs); i++)
            {
                float* scale = blockScales + i * halves / ActivationLayout.BlockInputs * Panel.Rows;
                int code = groups[i / 4 * Panel.GroupBytes + lane * 4 + i % 4] - (offsetShift == 0 ? 0 : 1 << offsetShift);
                float value = scale[0] * code;
                destination[block * ActivationLayout.BlockInputs + i] = TScales.HasMinimum ? value + scale[halves * Panel.Rows] : value;
            }
        }
    }

    private static PanelLayout Layout(int rows, int inputs, KeptCodes? kept)
    {
        int blocks = ActivationLayout.Blocks(inputs);
        long scaleBytes = blocks / SectionBlocks * (long)ScaleBytes(SectionBlocks) + ScaleBytes(blocks % SectionBlocks);
        if (kept is null)
        {
            return new PanelLayout(PanelsOf(rows), scaleBytes + blocks * (long)BlockKernel.CodeBytes(TCodes.Bits, TCodes.Sparsity));
        }
        var sizes = new long[PanelsOf(rows)];
        for (int panel = 0; panel < sizes.Length; panel++)
        {
            sizes[panel] = scaleBytes + kept.PanelBytes[panel];
        }
        return new PanelLayout(sizes);
    }

    /// <summary>Bytes of the scales of a section.</summary>
    private static int ScaleBytes(int blocks) => ((blocks + TScales.BlocksPerUnit - 1) / TScales.BlocksPerUnit * TScales.UnitBytes + 63) & ~63;

    /// <inheritdoc/>
    protected override int PanelsTogether(int tokens) => TilePanels;

    private BlockKernel DirectKernel(int tokens) =>
        new(TCodes.Bits, TCodes.UnpackedBits, offsetShift, TScales.HasMinimum, TScales.HalfBlocks, 1, tokens, TCodes.Table, TCodes.Sparsity);

    private BlockKernel TileKernel(int panels, int tokens) => DirectKernel(tokens) with { Bits = 8, Panels = panels, Table = 0, Sparsity = CodeSparsity.None };

    /// <summary>
    /// Few tokens: the kernel unpacks codes in registers as they come from memory. Where there is more than one tile of tokens, each chunk of the codes comes
    /// from memory for the first and from the cache for the others.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)] // Optimised for the first token, not only after many.
    private void MultiplyDirect(in MultiplyJob job, TokenTiles tiles, int thread, int panel)
    {
        float* scales = (float*)job.Team.ThreadScratch(thread, (nuint)(SectionBlocks * ScaleVectors * Panel.GroupBytes));
        float* sums = stackalloc float[job.Tokens * Panel.Rows];
        new Span<float>(sums, job.Tokens * Panel.Rows).Clear();
        byte* activations = job.BlocksOf(this);
        PanelCursor cursor = Start(panel);
        KernelArguments arguments = default;
        arguments.Scales = scales;
        for (int block = 0; block < blocks; block += SectionBlocks)
        {
            int count = Math.Min(SectionBlocks, blocks - block);
            EnterBlock(ref cursor, block);
            UnpackScales(cursor, block, count, scales, 1, 0);
            arguments.Count = count;
            for (int tile = 0; tile < tiles.Count; tile++)
            {
                arguments.Weights = cursor.Codes;
                int first = tiles.First(tile), tokens = tiles.Size(tile);
                arguments.Activations =
                    activations + first * ActivationLayout.TokenBytes(Inputs) + block * (long)(ActivationLayout.BytesPerToken * tokens);
                arguments.Accumulators = sums + first * Panel.Rows;
                arguments.Kernel = DirectKernel(tokens); // Sparse codes have no assembled kernel on some processors with VNNI.
                direct[tokens].Run(&arguments);
            }
            cursor.Codes = arguments.Weights;
        }
        Finish(job, sums, 0, job.Tokens, panel, 1);
    }

    /// <summary>Many tokens: codes are unpacked to a tile of bytes once, and all token tiles pass over it.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void MultiplyTiled(in MultiplyJob job, TokenTiles tiles, int thread, int firstPanel, int endPanel)
    {
        const int CodesBytes = SectionBlocks * TilePanels * ActivationLayout.Groups * Panel.GroupBytes;
        int scalesBytes = SectionBlocks * TilePanels * ScaleVectors * Panel.GroupBytes;
        int rows = (endPanel - firstPanel) * Panel.Rows;
        byte* codes = job.Team.ThreadScratch(thread, (nuint)(CodesBytes + scalesBytes) + (nuint)job.Tokens * (nuint)rows * sizeof(float));
        float* scales = (float*)(codes + CodesBytes), sums = (float*)(codes + CodesBytes + scalesBytes);
        byte* activations = job.BlocksOf(this);
        new Span<float>(sums, job.Tokens * rows).Clear();
        PanelCursor* cursors = stackalloc PanelCursor[GroupPanels];
        for (int panel = firstPanel; panel < endPanel; panel++)
        {
            cursors[panel - firstPanel] = Start(panel);
        }
        KernelArguments arguments = default;
        arguments.Scales = scales;
        for (int block = 0; block < blocks; block += SectionBlocks)
        {
            arguments.Count = Math.Min(SectionBlocks, blocks - block);
            float* pairSums = sums;
            for (int panel = firstPanel; panel < endPanel; panel += TilePanels)
            {
                int panels = Math.Min(TilePanels, endPanel - panel);
                UnpackTile(cursors + (panel - firstPanel), panels, block, (int)arguments.Count, codes, scales);
                for (int tile = 0; tile < tiles.Count; tile++)
                {
                    int first = tiles.First(tile), tokens = tiles.Size(tile);
                    arguments.Activations =
                        activations + first * ActivationLayout.TokenBytes(Inputs) + block * (long)(ActivationLayout.BytesPerToken * tokens);
                    arguments.Weights = codes;
                    arguments.Accumulators = pairSums + first * panels * Panel.Rows;
                    arguments.Kernel = TileKernel(panels, tokens);
                    tiled[panels, tokens].Run(&arguments);
                }
                pairSums += job.Tokens * panels * Panel.Rows;
            }
        }
        for (int panel = firstPanel; panel < endPanel; panel += TilePanels)
        {
            int panels = Math.Min(TilePanels, endPanel - panel);
            Finish(job, sums, 0, job.Tokens, panel, panels);
            sums += job.Tokens * panels * Panel.Rows;
        }
    }

    /// <summary>Unpacks a run of blocks of one or two panels, each from where its codes have been read to, and takes these further.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void UnpackTile(PanelCursor* cursors, int panels, int block, int count, byte* codes, float* scales)
    {
        for (int i = 0; i < panels; i++)
        {
            PanelCursor cursor = cursors[i];
            EnterBlock(ref cursor, block);
            UnpackScales(cursor, block, count, scales, panels, i);
            for (int b = 0; b < count; b++)
            {
                byte* groups = codes + (b * ActivationLayout.Groups * panels + i) * Panel.GroupBytes;
                TCodes.Unpack(cursor.Codes, groups, panels * Panel.GroupBytes);
                cursor.Codes += CodeBytes(cursor.Codes);
            }
            cursors[i] = cursor;
        }
    }

    /// <summary>Brings the scales of a run of blocks to float32, panel <paramref name="index"/> of <paramref name="panels"/> side by side.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void UnpackScales(in PanelCursor cursor, int block, int count, float* scales, int panels, int index)
    {
        int second = panels * Panel.Rows, stride = ScaleVectors * second;
        byte* unit = ScaleUnit(cursor, block);
        for (int i = 0; i < count; i += TScales.BlocksPerUnit, unit += TScales.UnitBytes)
        {
            TScales.Unpack(unit, scales + i * stride + index * Panel.Rows, second, stride);
        }
    }
}
