using System.Numerics.Tensors;
using Engine.Checkpoints;
using Engine.Cpu.Matmul;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Cpu;

/// <summary>
/// Token and position tables. Where the head is packed from the token table, rows are decoded from the packed head, so the file's pages need not stay
/// in memory; otherwise they are read where they lie in the file.
/// </summary>
internal sealed class CpuEmbedding : DeviceWeights
{
    private readonly PackedLinear? tied;
    private readonly MappedTable? tokens;
    private readonly MappedTable? positions;
    private readonly float[] positionRow;
    private readonly int vocabulary;

    /// <exception cref="EngineException">A tensor is missing or its shape does not fit.</exception>
    public CpuEmbedding(EmbeddingPlan plan, int hiddenSize, Checkpoint checkpoint, LinearPlan headPlan, PackedLinear head)
    {
        HiddenSize = hiddenSize;
        if (headPlan.Parts is [{ IsPlain: true } part] && part.Weight == plan.Tokens && headPlan.Inputs == hiddenSize && head.Plan == headPlan)
        {
            tied = head;
            vocabulary = headPlan.Outputs;
        }
        else
        {
            tokens = new MappedTable(plan.Tokens, hiddenSize, checkpoint);
            vocabulary = tokens.Rows;
        }
        positions = plan.Positions is null ? null : new MappedTable(plan.Positions, hiddenSize, checkpoint);
        positionRow = positions is null ? [] : new float[hiddenSize];
    }

    public int HiddenSize { get; }

    /// <summary>Nothing beyond the head or the file.</summary>
    public override long Bytes => 0;

    /// <summary>tokens[token] + positions[position].</summary>
    /// <exception cref="EngineException">Either is out of range.</exception>
    public void Read(int token, int position, Span<float> destination)
    {
        if ((uint)token >= (uint)vocabulary)
        {
            throw new EngineException($"token {token} is not in the vocabulary of {vocabulary}");
        }
        if (tied is not null)
        {
            tied.DecodeRow(token, destination);
        }
        else
        {
            tokens!.DecodeRow(token, destination);
        }
        if (positions is null)
        {
            return;
        }
        if ((uint)position >= (uint)positions.Rows)
        {
            throw new EngineException($"position {position} is past the {positions.Rows} learned positions");
        }
        positions.DecodeRow(position, positionRow);
        TensorPrimitives.Add(destination, positionRow, destination);
    }

    public override void Dispose()
    {
    }
}
