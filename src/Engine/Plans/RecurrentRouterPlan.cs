namespace Engine.Plans;

/// <summary>How a recurrent router's state goes on from one layer to the next: h from u, which the layer's projection gives, and from h itself.</summary>
public enum RecurrentCell
{
    /// <summary>
    /// Gates r = σ(r part), z = σ(z part) of W·u + b + V·h + c, and n = tanh(Wₙ·u + bₙ + r ⊙ (Vₙ·h + cₙ)): h = (1 − z) ⊙ n + z ⊙ h (Cho et al. 2014).
    /// </summary>
    Gru,
    /// <summary>h = tanh(W·u + b + V·h + c) (Elman 1990).</summary>
    Rnn,
}

/// <summary>What is told of a <see cref="RecurrentCell"/>.</summary>
public static class RecurrentCells
{
    /// <summary>Parts of the cell's linear maps, each as wide as the state.</summary>
    public static int Gates(this RecurrentCell cell) => cell == RecurrentCell.Gru ? 3 : 1;
}

/// <summary>
/// A cell whose state the routers of several layers hand on (Qiu et al. 2024, RMoE): a state per token, zero before the first of these layers, carried through
/// them in the order of the steps, also where a layer runs again. Nothing of it goes from token to token. Routers share a state where they have this same object.
/// </summary>
/// <param name="Kind">What is computed.</param>
/// <param name="Width">Elements of u and of the state.</param>
/// <param name="Input">W and b: u → [r | z | n] of a <see cref="RecurrentCell.Gru"/>, → the state of a <see cref="RecurrentCell.Rnn"/>.</param>
/// <param name="Hidden">V and c: the state before → the same.</param>
public sealed record RecurrentCellPlan(RecurrentCell Kind, int Width, LinearPlan Input, LinearPlan Hidden);

/// <summary>What makes a router recurrent: it reads the state of a cell instead of the layer's input.</summary>
/// <param name="Projection">hidden → u, the layer's own.</param>
/// <param name="Cell">The cell.</param>
public sealed record RecurrentRouterPlan(LinearPlan Projection, RecurrentCellPlan Cell);
