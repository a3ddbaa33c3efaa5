using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// A matrix of 16-bit floats of which every row keeps two of four neighbours: 9 bits for a weight instead of 16. A panel is blocks of 32 inputs: the places
/// (<see cref="SparseGroups"/>), then per group and row the two kept elements, the first one low. Products of finite inputs have the bits of the dense
/// matrix, for leaving out <c>fma(0, x, sum)</c> changes none.
/// </summary>
internal sealed unsafe class SparseFloatMatrix<TFormat> : PackedMatrix
    where TFormat : IFloatFormat
{
    private const int GroupBytes = Panel.Rows * 2 * sizeof(ushort);
    private const int BlockBytes = SparseGroups.PlaceBytes + ActivationLayout.Groups * GroupBytes;

    // Inputs that are expanded at a time where there are several tokens: four panels of them stay in the first-level cache.
    private const int ChunkInputs = 128;
    private const int MostPanels = 4;

    private readonly int blocks;
    private readonly ActivationForms reads;
    private readonly KernelPointer[,] kernels = new KernelPointer[MostPanels + 1, FloatKernel.MaxTokens + 1];
    private bool selects;

    /// <param name="rows">Output rows.</param>
    /// <param name="inputs">Columns, a multiple of 32.</param>
    /// <param name="roundsActivations">Activations are rounded to bfloat16.</param>
    public SparseFloatMatrix(int rows, int inputs, bool roundsActivations)
        : base(rows, inputs, inputs / ActivationLayout.BlockInputs * (long)BlockBytes)
    {
        blocks = inputs / ActivationLayout.BlockInputs;
        reads = roundsActivations ? ActivationForms.RoundedFloats : ActivationForms.Floats;
        Instructions = MatmulInstructionSupport.Best;
    }

    public override string Form => $"{TFormat.DType}, 2:4";

    public override ActivationForms Reads => reads;

    public override MatmulInstructions Instructions
    {
        set
        {
            selects = value >= MatmulInstructions.Avx512;
            for (int tokens = 1; tokens <= FloatKernel.MaxTokens; tokens++)
            {
                for (int panels = 1; panels <= FloatKernel.PanelsFor(tokens); panels *= 2)
                {
                    kernels[panels, tokens] = KernelPointer.For<TFormat>(new FloatKernel(TFormat.DType, panels, panels, tokens, reads), value);
                }
            }
        }
    }

    /// <summary>Every four neighbours of all rows have at most two that are not zero by value, and one element is not zero.</summary>
    /// <param name="source">The matrix, of 16-bit floats.</param>
    /// <param name="rows">Rows that are wanted of it.</param>
    /// <param name="inputs">Columns.</param>
    public static bool Conforms(WeightRows source, int rows, int inputs)
    {
        if (source.Transposed || inputs % ActivationLayout.BlockInputs != 0)
        {
            return false;
        }
        bool any = false;
        for (int row = 0; row < rows; row++)
        {
            fixed (byte* bytes = source.Tensor.Row(source.Row(row)))
            {
                ushort* elements = (ushort*)bytes;
                for (int group = 0; group < inputs; group += SparseGroups.Inputs)
                {
                    int kept = 0;
                    for (int i = 0; i < SparseGroups.Inputs; i++)
                    {
                        kept += IsZero(elements[group + i]) ? 0 : 1;
                    }
                    if (kept > SparseGroups.Kept)
                    {
                        return false;
                    }
                    any |= kept > 0;
                }
            }
        }
        return any;
    }

    public override void Pack(WeightRows source, int panel)
    {
        int rows = Math.Min(Panel.Rows, Rows - panel * Panel.Rows);
        new Span<byte>(PanelAddress(panel), checked((int)PanelBytes)).Clear();
        for (int row = 0; row < rows; row++)
        {
            long stored = source.Row(panel * Panel.Rows + row);
            source.Tensor.RequireFinite(stored);
            fixed (byte* bytes = source.Tensor.Row(stored))
            {
                for (int block = 0; block < blocks; block++)
                {
                    PackRow((ushort*)bytes + block * ActivationLayout.BlockInputs, PanelAddress(panel) + block * (long)BlockBytes, row);
                }
            }
        }
    }

    public override void Multiply(in MultiplyJob job, int thread, int firstPanel, int endPanel)
    {
        if (job.Tokens == 1 && selects)
        {
            int panel = firstPanel;
            for (; panel + 2 <= endPanel; panel += 2)
            {
                MultiplyTwo(job, panel);
            }
            if (panel < endPanel)
            {
                MultiplyOne(job, panel);
            }
            return;
        }
        var tiles = new TokenTiles(job.Tokens, FloatKernel.MaxTokens);
        for (int panel = firstPanel; panel < endPanel;)
        {
            int panels = FloatKernel.PanelsFor(tiles.Size(0));
            while (panels > endPanel - panel)
            {
                panels /= 2;
            }
            MultiplyExpanded(job, tiles, thread, panel, panels);
            panel += panels;
        }
    }

    public override void DecodeRow(int row, Span<float> destination)
    {
        destination.Clear();
        int lane = row % Panel.Rows;
        ushort* pair = stackalloc ushort[8 * TFormat.StepInputs];
        for (int group = 0; group < Inputs / SparseGroups.Inputs; group++)
        {
            byte* block = PanelAddress(row / Panel.Rows) + group / ActivationLayout.Groups * (long)BlockBytes;
            uint places = ((uint*)block)[lane] >> (group % ActivationLayout.Groups * 4);
            uint kept = ((uint*)Kept(block, group % ActivationLayout.Groups))[lane];
            for (int k = 0; k < SparseGroups.Kept; k++)
            {
                // The last of a step's inputs comes first.
                pair[TFormat.StepInputs - 1] = (ushort)(kept >> (16 * k));
                int place = (int)(places >> (2 * k) & 3);
                destination[group * SparseGroups.Inputs + place] = TFormat.Widen((byte*)pair, 0, null)[0];
            }
        }
    }

    protected override int PanelsTogether(int tokens) =>
        tokens == 1 ? 2 : FloatKernel.PanelsFor(new TokenTiles(tokens, FloatKernel.MaxTokens).Size(0));

    private static bool IsZero(ushort element) => (element & 0x7FFF) == 0;

    private static byte* Kept(byte* block, int group) => block + SparseGroups.PlaceBytes + group * GroupBytes;

    private static void PackRow(ushort* elements, byte* block, int row)
    {
        uint places = 0;
        for (int group = 0; group < ActivationLayout.Groups; group++)
        {
            ushort* four = elements + group * SparseGroups.Inputs;
            int first = 0, last = SparseGroups.Inputs - 1;
            while (first < SparseGroups.Kept && IsZero(four[first]))
            {
                first++;
            }
            while (last > first + 1 && IsZero(four[last]))
            {
                last--;
            }
            places |= (uint)(first | last << 2) << (4 * group);
            ((uint*)Kept(block, group))[row] = four[first] | (uint)four[last] << 16;
        }
        ((uint*)block)[row] = places;
    }

    /// <summary>One token and two panels: for each kept weight the input of its place is taken from a vector of 16.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void MultiplyTwo(in MultiplyJob job, int panel)
    {
        byte* first = PanelAddress(panel), second = PanelAddress(panel + 1);
        float* inputs = (float*)job.Words(reads);
        Vector512<float> a = Vector512<float>.Zero, b = Vector512<float>.Zero;
        for (int block = 0; block < blocks; block++, first += BlockBytes, second += BlockBytes, inputs += ActivationLayout.BlockInputs)
        {
            Vector512<uint> placesA = Vector512.Load((uint*)first), placesB = Vector512.Load((uint*)second);
            for (int half = 0; half < 2; half++)
            {
                Vector512<float> x = Vector512.Load(inputs + half * Vector512<float>.Count);
                for (int group = 0; group < 4; group++, placesA >>= 4, placesB >>= 4)
                {
                    Vector512<uint> keptA = Vector512.Load((uint*)Kept(first, half * 4 + group)), keptB = Vector512.Load((uint*)Kept(second, half * 4 + group));
                    a = Vector512.FusedMultiplyAdd(Widen(keptA, 0), Select(x, placesA, group), a);
                    b = Vector512.FusedMultiplyAdd(Widen(keptB, 0), Select(x, placesB, group), b);
                    a = Vector512.FusedMultiplyAdd(Widen(keptA, 1), Select(x, placesA >> 2, group), a);
                    b = Vector512.FusedMultiplyAdd(Widen(keptB, 1), Select(x, placesB >> 2, group), b);
                }
            }
        }
        float* sums = stackalloc float[2 * Panel.Rows];
        a.Store(sums);
        b.Store(sums + Panel.Rows);
        Finish(job, sums, 0, 1, panel, 2);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void MultiplyOne(in MultiplyJob job, int panel)
    {
        byte* address = PanelAddress(panel);
        float* inputs = (float*)job.Words(reads);
        Vector512<float> sum = Vector512<float>.Zero;
        for (int block = 0; block < blocks; block++, address += BlockBytes, inputs += ActivationLayout.BlockInputs)
        {
            Vector512<uint> places = Vector512.Load((uint*)address);
            for (int group = 0; group < ActivationLayout.Groups; group++, places >>= 4)
            {
                Vector512<float> x = Vector512.Load(inputs + group / 4 * Vector512<float>.Count);
                Vector512<uint> kept = Vector512.Load((uint*)Kept(address, group));
                sum = Vector512.FusedMultiplyAdd(Widen(kept, 0), Select(x, places, group % 4), sum);
                sum = Vector512.FusedMultiplyAdd(Widen(kept, 1), Select(x, places >> 2, group % 4), sum);
            }
        }
        float* sums = stackalloc float[Panel.Rows];
        sum.Store(sums);
        Finish(job, sums, 0, 1, panel, 1);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Select(Vector512<float> inputs, Vector512<uint> places, int group) =>
        Avx512F.PermuteVar16x32(inputs, ((places & Vector512.Create(3u)) | Vector512.Create(4u * (uint)group)).AsInt32());

    /// <summary>The first or second of the kept elements as float32.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Widen(Vector512<uint> kept, int which)
    {
        if (TFormat.DType == DType.BF16)
        {
            return (which == 0 ? kept << 16 : kept & Vector512.Create(0xFFFF0000u)).AsSingle();
        }
        Vector512<uint> bits = which == 0 ? kept & Vector512.Create(0xFFFFu) : kept >>> 16;
        return HalfFloats.FromBits(bits);
    }

    private void MultiplyExpanded(in MultiplyJob job, TokenTiles tiles, int thread, int panel, int panels)
    {
        const int StepRows = MostPanels * Panel.Rows;
        int rows = panels * Panel.Rows, stepBytes = rows * TFormat.StepInputs * sizeof(ushort);
        byte* expanded = job.Team.ThreadScratch(thread, ChunkInputs * StepRows * sizeof(ushort) + (nuint)job.Tokens * (nuint)rows * sizeof(float));
        float* sums = (float*)(expanded + ChunkInputs * StepRows * sizeof(ushort));
        new Span<float>(sums, job.Tokens * rows).Clear();
        KernelArguments arguments = default;
        arguments.Weights = expanded;
        arguments.StepStride = stepBytes;
        uint* activations = job.Words(reads);
        long tokenWords = FloatActivations.TokenWords(Inputs, reads);
        for (int input = 0; input < Inputs; input += ChunkInputs)
        {
            int count = Math.Min(ChunkInputs, Inputs - input);
            for (int i = 0; i < panels; i++)
            {
                Expand(panel + i, input, count, expanded + i * stepBytes / panels, stepBytes);
            }
            arguments.Count = count / TFormat.StepInputs;
            for (int tile = 0; tile < tiles.Count; tile++)
            {
                int first = tiles.First(tile), tokens = tiles.Size(tile);
                arguments.Activations = (byte*)(activations + first * tokenWords + (long)input * tokens);
                arguments.Accumulators = sums + first * rows;
                arguments.Kernel = default(BlockKernel) with { Panels = panels, Tokens = tokens };
                kernels[panels, tokens].Run(&arguments);
            }
        }
        Finish(job, sums, 0, job.Tokens, panel, panels);
    }

    /// <summary>Writes a run of a panel's inputs out as a dense matrix has them, steps <paramref name="stride"/> bytes apart.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void Expand(int panel, int input, int count, byte* steps, int stride)
    {
        for (int group = input / SparseGroups.Inputs; group < (input + count) / SparseGroups.Inputs; group++)
        {
            byte* block = PanelAddress(panel) + group / ActivationLayout.Groups * (long)BlockBytes;
            int shift = group % ActivationLayout.Groups * 4;
            uint* kept = (uint*)Kept(block, group % ActivationLayout.Groups);
            if (TFormat.StepInputs == 2 && Avx512BW.IsSupported)
            {
                PairSteps.Expand((uint*)block, shift, kept, steps, stride);
                steps += 2 * stride;
                continue;
            }
            for (int i = 0; i < SparseGroups.Inputs; i += TFormat.StepInputs, steps += stride)
            {
                ExpandStep((uint*)block, shift, kept, i, steps);
            }
        }
    }

    /// <summary>One step: of each row the elements at places <paramref name="place"/> and, where a step has two inputs, the next; zero where they are not kept.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void ExpandStep(uint* places, int shift, uint* kept, int place, byte* step)
    {
        if (TFormat.StepInputs == 2)
        {
            for (int row = 0; row < Panel.Rows; row += Vector256<uint>.Count)
            {
                (Vector256<uint> first, Vector256<uint> second) = At(places + row, shift, kept + row, place);
                (Vector256<uint> nextFirst, Vector256<uint> nextSecond) = At(places + row, shift, kept + row, place + 1);
                ((first | second) << 16 | nextFirst | nextSecond).Store((uint*)step + row);
            }
            return;
        }
        for (int row = 0; row < Panel.Rows; row += Vector256<uint>.Count)
        {
            (Vector256<uint> first, Vector256<uint> second) = At(places + row, shift, kept + row, place);
            Vector256<uint> elements = first | second;
            Vector128.Narrow(elements.GetLower(), elements.GetUpper()).Store((ushort*)step + row);
        }
    }

    /// <summary>Of 8 rows the first and the second kept element where it is at a place, else zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static (Vector256<uint> First, Vector256<uint> Second) At(uint* places, int shift, uint* kept, int place)
    {
        Vector256<uint> nibbles = Vector256.Load(places) >>> shift, elements = Vector256.Load(kept), two = Vector256.Create(3u);
        Vector256<uint> wanted = Vector256.Create((uint)place);
        return (elements & Vector256.Create(0xFFFFu) & Vector256.Equals(nibbles & two, wanted),
            elements >>> 16 & Vector256.Equals(nibbles >>> 2 & two, wanted));
    }
}

/// <summary>Steps of two inputs, the first of them in the upper half of 32 bits, out of the kept elements of a group.</summary>
internal static unsafe class PairSteps
{
    private const byte None = 0x80;

    // By nibble of places: for each byte of a row's 32 bits which byte of its two kept elements it is.
    private static readonly uint[] first = [.. Enumerable.Range(0, 16).Select(static nibble => Shuffle(nibble, 0))];
    private static readonly uint[] second = [.. Enumerable.Range(0, 16).Select(static nibble => Shuffle(nibble, 2))];

    /// <summary>Writes both steps of a group of 16 rows, <paramref name="stride"/> bytes apart.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Expand(uint* places, int shift, uint* kept, byte* steps, int stride)
    {
        Vector512<uint> nibbles = Vector512.Load(places) >>> shift;
        Vector512<byte> elements = Vector512.Load(kept).AsByte();
        Vector256<uint> rows = Vector256.Create(0u, 0x04040404, 0x08080808, 0x0C0C0C0C, 0u, 0x04040404, 0x08080808, 0x0C0C0C0C);
        Vector512<uint> inLane = Vector512.Create(rows, rows);
        Avx512BW.Shuffle(elements, (Avx512F.PermuteVar16x32(Vector512.Create<uint>(first), nibbles) | inLane).AsByte()).Store(steps);
        Avx512BW.Shuffle(elements, (Avx512F.PermuteVar16x32(Vector512.Create<uint>(second), nibbles) | inLane).AsByte()).Store(steps + stride);
    }

    private static uint Shuffle(int nibble, int place)
    {
        uint low = Bytes(nibble, place + 1), high = Bytes(nibble, place);
        return low | high << 16;
    }

    /// <summary>The bytes of the element at a place: those of the first kept, of the second, or none.</summary>
    private static uint Bytes(int nibble, int place) =>
        (nibble & 3) == place ? 0x0100u : nibble >> 2 == place ? 0x0302u : None | None << 8;
}
