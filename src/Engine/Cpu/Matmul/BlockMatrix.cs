using System.Runtime.CompilerServices;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;

namespace Engine.Cpu.Matmul;

/// <summary>
/// A matrix of codes and scales of blocks of 32 inputs. A panel is its scales, then the codes of its blocks one after another, so that multiplying one token
/// reads memory straight through. The packed copy has the bits of the file and hardly more, but that vectors of codebooks are written out: what is unpacked lives
/// in tiles of cache size. Derived classes pack it.
/// </summary>
internal abstract unsafe class BlockMatrix<TCodes, TScales> : PackedMatrix
    where TCodes : ICodes
    where TScales : IScales
{
    // Scales of a chunk: 64 blocks × 1 to 4 × 64 bytes fit the first-level cache beside the codes streaming through.
    private const int DirectChunk = 64;

    // A tile of 2 panels × 16 blocks × 512 bytes, with its scales and the activations of a token tile, fits the first-level cache.
    private const int TileChunk = 16;
    private const int TilePanels = 2;

    // Panels that pass over a chunk of the activations before the next chunk is begun, so that the second-level cache gives it several times.
    private const int GroupPanels = 8;

    private readonly int blocks;
    private readonly int offsetShift;
    private readonly long codesOffset;
    private readonly KernelPointer[] direct = new KernelPointer[BlockKernel.MaxTokens + 1];
    private readonly KernelPointer[,] tiled = new KernelPointer[TilePanels + 1, BlockKernel.MaxTokens + 1];
    private MatmulInstructions instructions;

    /// <param name="rows">Output rows.</param>
    /// <param name="inputs">Columns; those that the last block has beyond them count nothing, whatever their codes.</param>
    /// <param name="offsetShift">log₂ of the offset of the unsigned codes, 0 for none.</param>
    protected BlockMatrix(int rows, int inputs, int offsetShift)
        : base(rows, inputs, ScaleBytes(inputs) + ActivationLayout.Blocks(inputs) * (long)CodeBytes)
    {
        this.offsetShift = offsetShift;
        blocks = ActivationLayout.Blocks(inputs);
        codesOffset = ScaleBytes(inputs);
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

    /// <summary>Bytes of the codes of a block of a panel.</summary>
    protected static int CodeBytes => BlockKernel.CodeBytes(TCodes.Bits, TCodes.Sparse);

    private static int ScaleVectors => (TScales.HasMinimum ? 2 : 1) * (TScales.HalfBlocks ? 2 : 1);

    /// <summary>Units of scales, the first thing in a panel; cleared.</summary>
    protected byte* ClearScales(int panel)
    {
        new Span<byte>(PanelAddress(panel), checked((int)codesOffset)).Clear();
        return PanelAddress(panel);
    }

    /// <summary>The codes of a panel's blocks, one after another.</summary>
    protected byte* CodesOf(int panel) => PanelAddress(panel) + codesOffset;

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
        int group = blocks > TileChunk ? GroupPanels : TilePanels;
        for (int panel = firstPanel; panel < endPanel; panel += group)
        {
            MultiplyTiled(job, tiles, thread, panel, Math.Min(panel + group, endPanel));
        }
    }

    public override void DecodeRow(int row, Span<float> destination)
    {
        byte* scales = PanelAddress(row / Panel.Rows), codes = scales + codesOffset;
        int lane = row % Panel.Rows;
        byte* groups = stackalloc byte[ActivationLayout.Groups * Panel.GroupBytes];
        float* unpacked = stackalloc float[8 * 4 * Panel.Rows];
        int halves = TScales.HalfBlocks ? 2 : 1;
        for (int block = 0; block < blocks; block++)
        {
            int inUnit = block % TScales.BlocksPerUnit;
            if (inUnit == 0)
            {
                TScales.Unpack(scales + block / TScales.BlocksPerUnit * TScales.UnitBytes, unpacked, Panel.Rows, ScaleVectors * Panel.Rows);
            }
            TCodes.Unpack(codes + block * CodeBytes, groups, Panel.GroupBytes);
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

    private static long ScaleBytes(int inputs) =>
        ((ActivationLayout.Blocks(inputs) + TScales.BlocksPerUnit - 1) / TScales.BlocksPerUnit * (long)TScales.UnitBytes + 63) & ~63L;

    /// <inheritdoc/>
    protected override int PanelsTogether(int tokens) => TilePanels;

    private BlockKernel DirectKernel(int tokens) =>
        new(TCodes.Bits, TCodes.UnpackedBits, offsetShift, TScales.HasMinimum, TScales.HalfBlocks, 1, tokens, TCodes.Table, TCodes.Sparse);

    private BlockKernel TileKernel(int panels, int tokens) => DirectKernel(tokens) with { Bits = 8, Panels = panels, Table = 0, Sparse = false };

    /// <summary>
    /// Few tokens: the kernel unpacks codes in registers as they come from memory. Where there is more than one tile of tokens, each chunk of the codes comes
    /// from memory for the first and from the cache for the others.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)] // Optimised for the first token, not only after many.
    private void MultiplyDirect(in MultiplyJob job, TokenTiles tiles, int thread, int panel)
    {
        int chunk = tiles.Count == 1 ? DirectChunk : DirectChunk / 2;
        float* scales = (float*)job.Team.ThreadScratch(thread, (nuint)(DirectChunk * ScaleVectors * Panel.GroupBytes));
        float* sums = stackalloc float[job.Tokens * Panel.Rows];
        new Span<float>(sums, job.Tokens * Panel.Rows).Clear();
        byte* address = PanelAddress(panel), activations = job.BlocksOf(this);
        KernelArguments arguments = default;
        arguments.Scales = scales;
        for (int block = 0; block < blocks; block += chunk)
        {
            int count = Math.Min(chunk, blocks - block);
            UnpackScales(address, block, count, scales, 1, 0);
            arguments.Weights = address + codesOffset + block * (long)CodeBytes;
            arguments.Count = count;
            for (int tile = 0; tile < tiles.Count; tile++)
            {
                int first = tiles.First(tile), tokens = tiles.Size(tile);
                arguments.Activations =
                    activations + first * ActivationLayout.TokenBytes(Inputs) + block * (long)(ActivationLayout.BytesPerToken * tokens);
                arguments.Accumulators = sums + first * Panel.Rows;
                arguments.Kernel = DirectKernel(tokens);
                direct[tokens].Run(&arguments);
            }
        }
        Finish(job, sums, 0, job.Tokens, panel, 1);
    }

    /// <summary>Many tokens: codes are unpacked to a tile of bytes once, and all token tiles pass over it.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void MultiplyTiled(in MultiplyJob job, TokenTiles tiles, int thread, int firstPanel, int endPanel)
    {
        const int CodesBytes = TileChunk * TilePanels * ActivationLayout.Groups * Panel.GroupBytes;
        int scalesBytes = TileChunk * TilePanels * ScaleVectors * Panel.GroupBytes;
        int rows = (endPanel - firstPanel) * Panel.Rows;
        byte* codes = job.Team.ThreadScratch(thread, (nuint)(CodesBytes + scalesBytes) + (nuint)job.Tokens * (nuint)rows * sizeof(float));
        float* scales = (float*)(codes + CodesBytes), sums = (float*)(codes + CodesBytes + scalesBytes);
        byte* activations = job.BlocksOf(this);
        new Span<float>(sums, job.Tokens * rows).Clear();
        KernelArguments arguments = default;
        arguments.Weights = codes;
        arguments.Scales = scales;
        for (int block = 0; block < blocks; block += TileChunk)
        {
            arguments.Count = Math.Min(TileChunk, blocks - block);
            float* pairSums = sums;
            for (int panel = firstPanel; panel < endPanel; panel += TilePanels)
            {
                int panels = Math.Min(TilePanels, endPanel - panel);
                UnpackTile(panel, panels, block, (int)arguments.Count, codes, scales);
                for (int tile = 0; tile < tiles.Count; tile++)
                {
                    int first = tiles.First(tile), tokens = tiles.Size(tile);
                    arguments.Activations =
                        activations + first * ActivationLayout.TokenBytes(Inputs) + block * (long)(ActivationLayout.BytesPerToken * tokens);
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

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void UnpackTile(int panel, int panels, int block, int count, byte* codes, float* scales)
    {
        for (int i = 0; i < panels; i++)
        {
            byte* address = PanelAddress(panel + i);
            UnpackScales(address, block, count, scales, panels, i);
            byte* packed = address + codesOffset + block * (long)CodeBytes;
            for (int b = 0; b < count; b++)
            {
                byte* groups = codes + (b * ActivationLayout.Groups * panels + i) * Panel.GroupBytes;
                TCodes.Unpack(packed + b * CodeBytes, groups, panels * Panel.GroupBytes);
            }
        }
    }

    /// <summary>Brings the scales of a run of blocks to float32, panel <paramref name="index"/> of <paramref name="panels"/> side by side.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void UnpackScales(byte* section, int block, int count, float* scales, int panels, int index)
    {
        int second = panels * Panel.Rows, stride = ScaleVectors * second;
        for (int i = 0; i < count; i += TScales.BlocksPerUnit)
        {
            byte* unit = section + (block + i) / TScales.BlocksPerUnit * TScales.UnitBytes;
            TScales.Unpack(unit, scales + i * stride + index * Panel.Rows, second, stride);
        }
    }
}
