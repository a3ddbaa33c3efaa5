using Engine.Checkpoints;
using Engine.Plans;

namespace Engine.Execution;

/// <summary>How keys and values are stored in the cache.</summary>
public enum KvFormat
{
    /// <summary>IEEE binary32.</summary>
    F32,
    /// <summary>IEEE binary16.</summary>
    F16,
    /// <summary>32 elements: f16 scale, signed 8-bit codes.</summary>
    Q8_0,
}

/// <summary>Activations on a device: float32, [<see cref="Rows"/>, <see cref="Width"/>], row-major. Memory belongs to the backend and may not be host memory.</summary>
public abstract class Activations(int capacity, int width) : IDisposable
{
    /// <summary>Rows there is room for.</summary>
    public int Capacity { get; } = capacity;

    /// <summary>Elements of a row.</summary>
    public int Width { get; } = width;

    /// <summary>Rows in use; every operation reads and writes just these.</summary>
    public int Rows { get; set; }

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>Weights that a backend has packed: opaque to everyone else.</summary>
public abstract class DeviceWeights : IDisposable
{
    /// <summary>Bytes held on the device.</summary>
    public abstract long Bytes { get; }

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>
/// The keys and values of all sequences on a device: <c>PageCount</c> pages of <c>PageTokens</c> tokens. A page belongs to one track and one slot;
/// it holds K and V of its tokens in the slot's shape. Which page holds what is the business of <see cref="KvCache"/>.
/// </summary>
public abstract class KvStorage : IDisposable
{
    /// <summary>Bytes held on the device.</summary>
    public abstract long Bytes { get; }

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>
/// A device: it packs weights once and runs a small set of operations over rows. Operations are asynchronous where the device is; only
/// <see cref="ReadRows"/> waits. A row's arithmetic does not depend on the rows beside it. Not safe for concurrent use.
/// </summary>
public interface IBackend : IDisposable
{
    /// <summary>What runs here, for people: device, instruction set, threads.</summary>
    string Description { get; }

    /// <summary>Packs a linear map.</summary>
    /// <exception cref="EngineException">A tensor is missing, or its shape or format does not fit the plan.</exception>
    DeviceWeights LoadLinear(LinearPlan plan, Checkpoint checkpoint);

    /// <summary>Packs an embedding. <paramref name="head"/> may serve the token table where both name the same tensor.</summary>
    DeviceWeights LoadEmbedding(EmbeddingPlan plan, int hiddenSize, Checkpoint checkpoint, LinearPlan headPlan, DeviceWeights head);

    /// <summary>Loads the gain and bias of a norm over <paramref name="width"/> elements.</summary>
    DeviceWeights LoadNorm(NormPlan plan, int width, Checkpoint checkpoint);

    /// <summary>Prepares the rotation for positions 0 … contextLength − 1.</summary>
    DeviceWeights LoadRope(RopePlan plan, int contextLength);

    /// <summary>Makes room for activations.</summary>
    Activations Allocate(int capacity, int width);

    /// <summary>Makes the page pool. Pages are large enough for the largest slot.</summary>
    KvStorage AllocateKv(IReadOnlyList<KvSlotPlan> slots, KvFormat format, int pageCount, int pageTokens);

    /// <summary>Announces a step: its rows and page tables stay as they are until <see cref="EndStep"/>.</summary>
    void BeginStep(StepPlan step, KvStorage kv);

    /// <summary>Ends the step; host threads of the backend may rest.</summary>
    void EndStep();

    /// <summary>output[r] = tokens[row r's token] (+ positions[row r's position]) for all rows of the step.</summary>
    void Embed(DeviceWeights embedding, Activations output);

    /// <summary>output = norm(input), row by row. Input and output may be the same.</summary>
    void Normalize(DeviceWeights norm, Activations input, Activations output);

    /// <summary>output = W·input + b; with <paramref name="accumulate"/>, output += W·input + b.</summary>
    void Multiply(DeviceWeights linear, Activations input, Activations output, bool accumulate = false);

    /// <summary>In every row of <paramref name="qkv"/>, normalises each query and each key head in place; either norm may be null.</summary>
    void NormalizeHeads(AttentionPlan attention, DeviceWeights? queryNorm, DeviceWeights? keyNorm, Activations qkv);

    /// <summary>
    /// Rotates q (in place) and k of every row of <paramref name="qkv"/> by the row's position, and appends k and v to the row's track in
    /// <paramref name="slot"/>. <paramref name="rope"/> is null where positions are learned.
    /// </summary>
    void RotateAndAppend(AttentionPlan attention, DeviceWeights? rope, Activations qkv, int slot);

    /// <summary>
    /// output[r] = softmax(scale · q·Kᵀ)·V over the tokens of row r's track in <paramref name="slot"/> up to and including row r, [heads × headDim].
    /// </summary>
    void Attend(AttentionPlan attention, Activations qkv, int slot, Activations output);

    /// <summary>output = activation(input): [gate | up] → width for gated kinds, else elementwise.</summary>
    void Activate(Activation activation, Activations input, Activations output);

    /// <summary>output[i] = input[rows[i]]: compacts the rows named; sets <c>output.Rows</c>.</summary>
    void Gather(Activations input, ReadOnlySpan<int> rows, Activations output);

    /// <summary>Waits for the device and copies all rows of <paramref name="source"/> to <paramref name="destination"/> [rows × width].</summary>
    void ReadRows(Activations source, Span<float> destination);
}
