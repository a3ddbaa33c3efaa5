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
/// Which slots of a mixture of experts each row goes to, and with what weight: [<see cref="Rows"/>, at most <see cref="Most"/>]. Memory belongs to the backend.
/// </summary>
public abstract class ExpertSelection(int capacity, int most) : IDisposable
{
    /// <summary>Rows there is room for.</summary>
    public int Capacity { get; } = capacity;

    /// <summary>Slots a row may go to.</summary>
    public int Most { get; } = most;

    /// <summary>Rows in use.</summary>
    public int Rows { get; set; }

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>What experts have cost so far. Each step reads a slot once, however many of its rows go to it.</summary>
/// <param name="Slots">Slots read, summed over layers and steps; those of shared experts included.</param>
/// <param name="Bytes">Their packed weights.</param>
public readonly record struct ExpertTraffic(long Slots, long Bytes);

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

    /// <summary>What <see cref="ApplyExperts"/> has read so far. May be read while a step runs.</summary>
    ExpertTraffic ExpertTraffic { get; }

    /// <summary>Packs a linear map.</summary>
    /// <exception cref="EngineException">A tensor is missing, or its shape or format does not fit the plan.</exception>
    DeviceWeights LoadLinear(LinearPlan plan, Checkpoint checkpoint);

    /// <summary>Packs the linear maps of heads.</summary>
    /// <exception cref="EngineException">A tensor is missing, or its shape or format does not fit the plan.</exception>
    DeviceWeights LoadHeads(HeadLinearPlan plan, Checkpoint checkpoint);

    /// <summary>Packs an embedding. <paramref name="head"/> may serve the token table where both name the same tensor.</summary>
    DeviceWeights LoadEmbedding(EmbeddingPlan plan, int hiddenSize, Checkpoint checkpoint, LinearPlan headPlan, DeviceWeights head);

    /// <summary>Loads the gain and bias of a norm over <paramref name="width"/> elements.</summary>
    DeviceWeights LoadNorm(NormPlan plan, int width, Checkpoint checkpoint);

    /// <summary>Prepares the rotation for positions 0 … contextLength − 1.</summary>
    DeviceWeights LoadRope(RopePlan plan, int contextLength);

    /// <summary>
    /// Loads the prefixes that every set of streams has for one step of the layers; an entry is null where a set has one stream and so no prefix.
    /// </summary>
    /// <param name="prefixes">Per set, the tensors, the number of streams and the tokens of a prefix.</param>
    /// <param name="shape">Heads of the step's slot.</param>
    /// <param name="checkpoint">Where the tensors are.</param>
    DeviceWeights LoadPrefixes(IReadOnlyList<(StreamPrefixPlan Plan, int Streams, int Tokens)?> prefixes, KvSlotPlan shape, Checkpoint checkpoint);

    /// <summary>Packs the slots of a mixture of experts.</summary>
    /// <exception cref="EngineException">A tensor is missing, or its shape or format does not fit the plan.</exception>
    DeviceWeights LoadExperts(ExpertsPlan plan, Checkpoint checkpoint);

    /// <summary>Makes room for the choices of a router.</summary>
    /// <param name="capacity">Rows.</param>
    /// <param name="most">Slots of a row, those of shared experts included.</param>
    ExpertSelection AllocateSelection(int capacity, int most);

    /// <summary>Makes room for activations.</summary>
    Activations Allocate(int capacity, int width);

    /// <summary>Makes the page pool. Pages are large enough for the largest slot.</summary>
    KvStorage AllocateKv(IReadOnlyList<KvSlotPlan> slots, KvFormat format, int pageCount, int pageTokens);

    /// <summary>Announces a step: its tracks and page tables stay as they are until <see cref="EndStep"/>.</summary>
    void BeginStep(StepPlan step, KvStorage kv);

    /// <summary>
    /// Says which rows <see cref="Embed"/>, <see cref="RotateAndAppend"/>, <see cref="Attend"/> and <see cref="SelectExperts"/> work on from here on. A run that
    /// writes begins behind what the slot held before the step and what <see cref="StepPlan.Appended"/> says when the operation is called.
    /// </summary>
    void SelectRows(RowSet rows);

    /// <summary>Ends the step; host threads of the backend may rest.</summary>
    void EndStep();

    /// <summary>output[r] = tokens[row r's token] (+ positions[row r's position]) for all selected rows.</summary>
    void Embed(DeviceWeights embedding, Activations output);

    /// <summary>output = norm(input), row by row. Input and output may be the same.</summary>
    void Normalize(DeviceWeights norm, Activations input, Activations output);

    /// <summary>output = W·input + b; with <paramref name="accumulate"/>, output += W·input + b.</summary>
    void Multiply(DeviceWeights linear, Activations input, Activations output, bool accumulate = false);

    /// <summary>
    /// output[r] = [per head: W·its first elements | its other elements], and behind all heads tail[r], where there is one: see <see cref="HeadLinearPlan"/>.
    /// </summary>
    void MultiplyHeads(DeviceWeights heads, Activations input, Activations? tail, Activations output);

    /// <summary>
    /// In every row of <paramref name="qkv"/>, normalises each query and each key head in place, or all of them as one vector where the plan says so; either
    /// norm may be null. Of a latent key, just the latent is normalised. Then clamps q, k and v where the plan says so.
    /// </summary>
    void NormalizeHeads(AttentionPlan attention, DeviceWeights? queryNorm, DeviceWeights? keyNorm, Activations qkv);

    /// <summary>
    /// Rotates q (in place) and k of every row of <paramref name="qkv"/> by the row's position, and appends k and v to the row's track in
    /// <paramref name="slot"/> shifted by its run (of latent attention, k alone); rows of runs that do not write only have q rotated. <paramref name="rope"/> is null where positions are
    /// learned.
    /// </summary>
    void RotateAndAppend(AttentionPlan attention, DeviceWeights? rope, Activations qkv, int slot);

    /// <summary>
    /// output[r] = softmax(scale · q·Kᵀ)·V over the tokens of row r's track in <paramref name="slot"/> (shifted by its run) up to and including row r,
    /// [heads × valueDim]. Where <paramref name="prefixes"/> has one for the row's stream, its keys and values come before the tokens', outside any window.
    /// <see cref="AttentionPlan.Sinks"/> count in the softmax' denominator.
    /// </summary>
    void Attend(AttentionPlan attention, Activations qkv, int slot, DeviceWeights? prefixes, Activations output);

    /// <summary>
    /// output = activation(input): [gate | up] → width for gated kinds, else elementwise. <paramref name="clamp"/> is for <see cref="Activation.ClampedSwiGlu"/>;
    /// null for <see cref="SwiGluClamp.Default"/>.
    /// </summary>
    void Activate(Activation activation, Activations input, Activations output, SwiGluClamp? clamp = null);

    /// <summary>
    /// Takes a recurrent router's state a layer further, in place: from input = W·u + b and hidden = V·state + c, [rows, gates × width] each, to the next state
    /// [rows, width]; see <see cref="RecurrentCell"/>.
    /// </summary>
    void Recur(RecurrentCell cell, Activations input, Activations hidden, Activations state);

    /// <summary>
    /// Chooses experts for every selected row (<see cref="ExpertRouting.Select"/>) and notes their slots, each once per row, and behind them those of shared experts.
    /// </summary>
    /// <param name="plan">Router and map.</param>
    /// <param name="logits">[rows, <see cref="RouterPlan.Outputs"/>].</param>
    /// <param name="perToken">Experts per row; 1 … <see cref="ExpertsPlan.Kept"/>.</param>
    /// <param name="selection">Overwritten; its rows are set.</param>
    void SelectExperts(ExpertsPlan plan, Activations logits, int perToken, ExpertSelection selection);

    /// <summary>output[r] += Σ weight · slot(input[r]) over the slots that row r goes to, in their order.</summary>
    void ApplyExperts(DeviceWeights experts, Activations input, ExpertSelection selection, Activations output);

    /// <summary>Waits for the device and copies what was chosen: [rows × <see cref="ExpertSelection.Most"/>] slots, −1 past a row's last, and weights.</summary>
    void ReadSelection(ExpertSelection selection, Span<int> slots, Span<float> weights);

    /// <summary>output[i] = input[rows[i]]: compacts the rows named; sets <c>output.Rows</c>.</summary>
    void Gather(Activations input, ReadOnlySpan<int> rows, Activations output);

    /// <summary>output[rows[i]] = input[i]; no row is named twice.</summary>
    void Scatter(Activations input, ReadOnlySpan<int> rows, Activations output);

    /// <summary>output[rows[i]] += weights[i] · input[i]; no row is named twice.</summary>
    void ScatterAdd(Activations input, ReadOnlySpan<float> weights, ReadOnlySpan<int> rows, Activations output);

    /// <summary>Every element becomes 0.</summary>
    void Clear(Activations activations);

    /// <summary>Multiplies every element by a factor, in place.</summary>
    void Scale(Activations activations, float factor);

    /// <summary>
    /// Lays the streams of a token side by side, element by element: output[i][h · P + p] = input[i · P + p][h], [n · P, width] → [n, width · P].
    /// </summary>
    void Interleave(Activations input, int streams, Activations output);

    /// <summary>
    /// Replaces each row of <paramref name="gate"/> [n, P] by w = (1 − ε)·softmax + ε / P, and output[i] = Σₚ wₚ · input[i · P + p].
    /// </summary>
    void MixStreams(Activations gate, Activations input, float smoothing, Activations output);

    /// <summary>
    /// Calls <c>body(0) … body(count − 1)</c> on the host threads of the backend, the caller's among them, and returns when all are done: for work of a step that
    /// no device does, such as sampling.
    /// </summary>
    /// <exception cref="Exception">The first that a call threw; calls that had not begun by then may be left out.</exception>
    void ForEach(int count, Action<int> body);

    /// <summary>Waits for the device and copies all rows of <paramref name="source"/> to <paramref name="destination"/> [rows × width].</summary>
    void ReadRows(Activations source, Span<float> destination);
}
