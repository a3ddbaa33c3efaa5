namespace Engine.Cpu.Matmul;

/// <summary>What is left of the codes of a matrix without those of zero (<see cref="Formats.MaskedGroups"/>). It is known before the matrix is made.</summary>
/// <param name="PanelBytes">Bytes of the codes of each panel as they are packed, masks included.</param>
/// <param name="Part">Codes that are kept, of all.</param>
internal sealed record KeptCodes(long[] PanelBytes, double Part);
