namespace Engine.Cpu.Matmul.Formats;

/// <summary>Which zeros of a matrix are left out where it is packed.</summary>
internal enum CodeSparsity
{
    /// <summary>None: all codes are packed.</summary>
    None,

    /// <summary>Two of every four neighbours (<see cref="SparseGroups"/>).</summary>
    TwoOfFour,

    /// <summary>All, wherever they are (<see cref="MaskedGroups"/>).</summary>
    Unstructured,
}
