using Engine.Checkpoints;

namespace Engine.Bench;

/// <summary>What a coded matrix is like.</summary>
/// <param name="Name">For the table.</param>
/// <param name="Bits">Of a code.</param>
/// <param name="Numbers">What codes stand for.</param>
/// <param name="GroupColumns">Columns that share a scale.</param>
internal sealed record CodedShape(string Name, int Bits, CodeNumbers Numbers, int GroupColumns)
{
    /// <summary>Groups have zero points.</summary>
    public bool Zeros { get; init; }

    /// <summary>Columns are stored in an order of their own.</summary>
    public bool Ordered { get; init; }
}
