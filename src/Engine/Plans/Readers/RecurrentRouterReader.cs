namespace Engine.Plans.Readers;

/// <summary>
/// Reads the recurrent routers of RMoE (Qiu et al. 2024; <c>llama_moe_rnn</c>): each mixture has <c>weight1</c> [state, hidden] and <c>weight2</c>
/// [experts, state], and all share the cell <c>rnn_router</c> of the model, whose matrices are <c>weight_{i,h}{r,z,n}</c> [state, state] and whose biases are
/// <c>bias_{i,h}{r,z,n}</c> [state], i of the input and h of the state; the plain cell has n alone.
/// </summary>
internal sealed class RecurrentRouterReader
{
    private const string WidthKey = "moe_router_rnn_hidden_size";

    /// <summary>Width of the state where the configuration does not say (<c>configuration_llama_moe_rnn.py</c>).</summary>
    private const int UsualWidth = 256;

    private readonly TensorCatalog tensors;
    private readonly int hidden;
    private readonly RecurrentCellPlan cell;

    /// <summary>Reads the cell.</summary>
    /// <exception cref="EngineException">The width is malformed, or a tensor has another shape.</exception>
    public RecurrentRouterReader(ConfigReader config, TensorCatalog tensors, int hidden, RecurrentCell kind)
    {
        this.tensors = tensors;
        this.hidden = hidden;
        Width = config.CountOrNull(WidthKey) ?? UsualWidth;
        string name = $"{tensors.Prefix("model.")}rnn_router";
        cell = new RecurrentCellPlan(kind, Width, Linear('i'), Linear('h'));

        LinearPlan Linear(char side) => new(Width, [.. (kind == RecurrentCell.Gru ? "rzn" : "n").Select(gate => new LinearPart(
            Width, tensors.Matrix($"{name}.weight_{side}{gate}", Width, Width), tensors.Vector($"{name}.bias_{side}{gate}", Width)))]);
    }

    /// <summary>Elements of the state.</summary>
    public int Width { get; }

    /// <summary>The name of the matrix from the state to the logits.</summary>
    public static string Logits(string module) => $"{module}.weight2";

    /// <summary>What makes the router of a mixture recurrent.</summary>
    public RecurrentRouterPlan Read(string module) =>
        new(new LinearPlan(hidden, [new LinearPart(Width, tensors.Matrix($"{module}.weight1", Width, hidden))]), cell);
}
