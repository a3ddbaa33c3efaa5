using System.Collections.Immutable;

namespace Engine.Plans.Readers;

/// <summary>
/// Reads experts as gpt-oss stores them, all of a layer in a tensor, gate and up in turn, with biases:
/// <list type="bullet">
/// <item>as floats <c>experts.gate_up_proj</c> [experts, hidden, 2 × width] and <c>down_proj</c> [experts, width, hidden], transposed;</item>
/// <item>as MXFP4 <c>experts.gate_up_proj_blocks</c> [experts, 2 × width, hidden / 32, 16] and <c>_scales</c> [experts, 2 × width, hidden / 32], and likewise
/// <c>down_proj</c> [experts, hidden, width / 32, 16].</item>
/// </list>
/// Biases are <c>gate_up_proj_bias</c> [experts, 2 × width] and <c>down_proj_bias</c> [experts, hidden].
/// </summary>
internal static class InterleavedExperts
{
    private const int BlockElements = 32, BlockBytes = 16;

    /// <summary>The experts of a mixture, or null where it stores them otherwise.</summary>
    /// <param name="feedForwards">Activation, hidden width and tensors.</param>
    /// <param name="name">What the names of the tensors begin with: <c>model.layers.3.mlp.experts</c>.</param>
    /// <param name="experts">How many there are.</param>
    /// <param name="expected">Their width where no tensor tells it.</param>
    public static List<FeedForwardPlan>? Read(FeedForwardReader feedForwards, string name, int experts, Func<int> expected)
    {
        TensorCatalog tensors = feedForwards.Tensors;
        string gateUp = $"{name}.gate_up_proj", down = $"{name}.down_proj";
        bool coded = tensors.Has(gateUp + "_blocks") || tensors.Has(down + "_blocks");
        if (!coded && !tensors.Has(gateUp) && !tensors.Has(down))
        {
            return null;
        }
        int hidden = feedForwards.Hidden;
        int width = feedForwards.Agreed(
            gateUp, Half(coded ? tensors.ShapeOf(gateUp + "_blocks") is [_, var r, _, _] ? r : null : tensors.ShapeOf(gateUp) is [_, _, var c] ? c : null),
            Half(tensors.ShapeOf(gateUp + "_bias") is [_, var b] ? b : null),
            coded
                ? tensors.ShapeOf(down + "_blocks") is [_, _, var n, _] ? n * BlockElements : null
                : tensors.ShapeOf(down) is [_, var rows, _] ? rows : null) ?? expected();
        WeightRef gateUps = Matrices(gateUp, 2 * width, hidden), downs = Matrices(down, hidden, width);
        WeightRef gateUpBiases = tensors.Tensor(gateUp + "_bias", experts, 2 * width), downBiases = tensors.Tensor(down + "_bias", experts, hidden);
        return [.. Enumerable.Range(0, experts).Select(expert => feedForwards.Plan(
            width,
            new LinearPart(width, Turn(gateUps, expert, 0), Turn(gateUpBiases, expert, 0)),
            new LinearPart(width, Turn(gateUps, expert, 1), Turn(gateUpBiases, expert, 1)),
            new LinearPart(hidden, downs with { Slice = expert }, downBiases with { Slice = expert })))];

        WeightRef Matrices(string tensor, int outputs, int inputs) => coded
            ? tensors.Codes(tensor + "_blocks", experts, outputs, inputs / BlockElements, BlockBytes) with
            {
                Scales = tensors.Codes(tensor + "_scales", experts, outputs, inputs / BlockElements).Tensor,
            }
            : tensors.Tensor(tensor, experts, inputs, outputs) with { Transposed = true };

        static WeightRef Turn(WeightRef weight, int expert, int first) => weight with { Slice = expert, FirstRow = first, RowStep = 2 };

        static long? Half(long? both) => both / 2;
    }
}
