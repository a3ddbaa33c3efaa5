using System.Buffers;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using Engine.Checkpoints;
using Engine.Cpu.Matmul.Formats;
using Engine.Cpu.Matmul.Kernels;
using Engine.Plans;

namespace Engine.Cpu.Matmul;

/// <summary>
/// Codes of a table of floats: kernels widen them in registers and sum a group of inputs, which is then multiplied by the scales that lie behind it.
/// </summary>
internal sealed unsafe class CodedFloatMatrix<TFormat> : FloatPanelMatrix<TFormat>
    where TFormat : ICodedFloats
{
    private readonly int groupInputs;
    private readonly int groups;
    private readonly float[] table = GC.AllocateArray<float>(16, pinned: true);
    private readonly KernelPointer?[,,] scaled = new KernelPointer?[GroupPanels + 1, GroupPanels + 1, FloatKernel.MaxTokens + 1];

    /// <param name="rows">Output rows.</param>
    /// <param name="inputs">Columns.</param>
    /// <param name="groupInputs">Columns of a scale, a multiple of the inputs of a step; or as many as there are.</param>
    /// <param name="numbers">The number of each code.</param>
    public CodedFloatMatrix(int rows, int inputs, int groupInputs, ReadOnlySpan<float> numbers)
        : base(rows, inputs, groupInputs)
    {
        this.groupInputs = groupInputs;
        groups = (inputs + groupInputs - 1) / groupInputs;
        TFormat.FillTable(numbers, table);
    }

    public override string Form => $"{(typeof(TFormat) == typeof(TableNibbles) ? "a table of 16 floats" : $"{TFormat.DType}")}, a scale per {groupInputs}";

    public override MatmulInstructions Instructions
    {
        set
        {
            base.Instructions = value;
            ReadOnlySpan<int> widths = [Panels >= GroupPanels ? GroupPanels : 0, Panels % GroupPanels];
            foreach (int width in widths)
            {
                for (int tokens = 1; tokens <= FloatKernel.MaxTokens; tokens++)
                {
                    for (int panels = 1; panels <= Math.Min(width, FloatKernel.PanelsFor(tokens)); panels *= 2)
                    {
                        scaled[width, panels, tokens] =
                            KernelPointer.Scaled(new FloatKernel(TFormat.DType, width, panels, tokens, ActivationForms.Floats, true), value);
                    }
                }
            }
        }
    }

    protected override float* Table => (float*)Unsafe.AsPointer(ref table[0]);

    public override void Pack(WeightRows source, int panel)
    {
        CodedMatrix coded = source.Tensor.Coded!;
        byte[] codes = ArrayPool<byte>.Shared.Rent(Inputs);
        float[] scales = ArrayPool<float>.Shared.Rent(groups);
        for (int row = 0; row < Panel.Rows; row++)
        {
            // Rows past the last are codes 0 with scales 0; no one reads them.
            bool stored = panel * Panel.Rows + row < Rows;
            Span<byte> rowCodes = codes.AsSpan(0, Inputs);
            Span<float> rowScales = scales.AsSpan(0, groups);
            rowCodes.Clear();
            rowScales.Clear();
            if (stored)
            {
                long from = source.Row(panel * Panel.Rows + row);
                coded.RequireFinite(from);
                coded.ReadCodes(from, rowCodes);
                coded.ReadScales(from, rowScales, []);
            }
            for (int input = 0; input < Inputs; input++)
            {
                TFormat.Store(rowCodes[input], Address(panel, input) + row, input % TFormat.StepInputs);
            }
            for (int group = 0; group < groups; group++)
            {
                ScalesOf(panel, group)[row] = rowScales[group];
            }
        }
        ArrayPool<byte>.Shared.Return(codes);
        ArrayPool<float>.Shared.Return(scales);
    }

    public override void DecodeRow(int row, Span<float> destination)
    {
        base.DecodeRow(row, destination);
        for (int group = 0, input = 0; group < groups; group++)
        {
            float scale = ScalesOf(row / Panel.Rows, group)[row % Panel.Rows];
            for (int end = Math.Min(Inputs, input + groupInputs); input < end; input++)
            {
                destination[input] *= scale;
            }
        }
    }

    protected override void Multiply(in MultiplyJob job, TokenTiles tiles, int thread, int panel, int panels)
    {
        int rows = panels * Panel.Rows, count = job.Tokens * rows;
        float* sums = (float*)job.Team.ThreadScratch(thread, 2 * (nuint)count * sizeof(float)), totals = sums + count;
        new Span<float>(totals, count).Clear();
        if (tiles.Count == 1 && scaled[Width(panel), panels, job.Tokens] is { } kernel)
        {
            AddGroups(job, kernel, panel, totals);
            Finish(job, totals, 0, job.Tokens, panel, panels);
            return;
        }
        for (int group = 0; group < groups; group++)
        {
            int first = group * groupInputs;
            new Span<float>(sums, count).Clear();
            Accumulate(job, tiles, panel, panels, first, Math.Min(Inputs, first + groupInputs), sums);
            AddScaled(sums, ScalesOf(panel, group), rows, count, totals);
        }
        Finish(job, totals, 0, job.Tokens, panel, panels);
    }

    /// <summary>A tile of tokens: one call for all groups but one that the row ends within.</summary>
    private void AddGroups(in MultiplyJob job, KernelPointer kernel, int panel, float* totals)
    {
        KernelArguments arguments = default;
        arguments.Scales = Table;
        arguments.Accumulators = totals;
        int whole = Inputs / groupInputs;
        if (whole > 0)
        {
            arguments.Count = Steps(groupInputs);
            arguments.Groups = whole;
            Run(0, job);
        }
        if (Inputs % groupInputs is > 0 and var rest)
        {
            arguments.Count = Steps(rest);
            arguments.Groups = 1;
            Run(whole, job);
        }

        void Run(int group, in MultiplyJob job)
        {
            int input = group * groupInputs;
            arguments.Weights = Address(panel, input);
            arguments.Activations = (byte*)(job.Words(Reads) + (long)input * job.Tokens);
            arguments.GroupScales = (byte*)ScalesOf(panel, group);
            arguments.GroupStride = Width(panel) * (arguments.Count * StepBytes + ScaleBytes);
            KernelArguments copy = arguments;
            kernel.Run(&copy);
        }
    }

    private static int Steps(int inputs) => (inputs + TFormat.StepInputs - 1) / TFormat.StepInputs;

    /// <summary>The scales of a group of inputs for a panel's rows; those of the next panel of the same group of panels follow.</summary>
    private float* ScalesOf(int panel, int group)
    {
        int width = Width(panel), end = Math.Min(Inputs, (group + 1) * groupInputs);
        return (float*)(GroupAddress(panel) + width * (Steps(end) * (long)StepBytes + group * (long)ScaleBytes) + panel % GroupPanels * ScaleBytes);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void AddScaled(float* sums, float* scales, int rows, int count, float* totals)
    {
        for (int token = 0; token < count; token += rows)
        {
            for (int row = 0; row < rows; row += Vector256<float>.Count)
            {
                Vector256.FusedMultiplyAdd(Vector256.Load(sums + token + row), Vector256.Load(scales + row), Vector256.Load(totals + token + row))
                    .Store(totals + token + row);
            }
        }
    }
}
