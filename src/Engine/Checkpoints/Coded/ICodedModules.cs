namespace Engine.Checkpoints.Coded;

/// <summary>One way to store quantized modules: what tensors of the file belong to weights, and how these are read.</summary>
internal interface ICodedModules
{
    /// <summary>Ends of tensor names that only this way of storing has, behind the module's name and a dot; the module's weight is made of them.</summary>
    IReadOnlySet<string> Companions { get; }

    /// <summary>
    /// The weight of a module, called <c>module.weight</c>; null where it is stored as it is. Everything that is not data is checked here.
    /// </summary>
    /// <param name="module">The module; it has one of the companions, or a weight.</param>
    /// <exception cref="EngineException">Tensors are missing or do not fit the configuration or each other.</exception>
    CodedWeight? Read(CodedModule module);
}

/// <summary>A weight: a view, or one that is decoded when it is asked for, because no product reads it as it is stored.</summary>
/// <param name="Outline">What it is; its bytes may not be there.</param>
/// <param name="View">Gives the view.</param>
internal sealed record CodedWeight(TensorView Outline, Func<TensorView> View)
{
    /// <summary>A coded matrix.</summary>
    public static CodedWeight Of(CodedMatrix matrix)
    {
        TensorView view = TensorView.Of(matrix, matrix.Parts);
        return new CodedWeight(view, () => view);
    }
}
