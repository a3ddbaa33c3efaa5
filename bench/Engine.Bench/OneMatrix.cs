using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;
using Engine.Checkpoints;

namespace Engine.Bench;

/// <summary>A checkpoint of one tensor.</summary>
internal sealed class OneMatrix(TensorView matrix) : Checkpoint
{
    public override string Path => "(memory)";

    public override IReadOnlyCollection<string> TensorNames => [matrix.Name];

    public override JsonObject Config => [];

    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor) => (tensor = name == matrix.Name ? matrix : null) is not null;
}
