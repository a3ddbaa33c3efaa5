using Engine.Checkpoints;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>
/// A block format of a file (formats.md §2.1): a weight is <c>scale · (code − offset)</c>, or <c>scale · code + minimum</c>. One struct each; how
/// codes and scales are packed and multiplied is shared (<see cref="ICodes"/>, <see cref="IScales"/>).
/// </summary>
internal unsafe interface IBlockFormat
{
    /// <summary>The type of a tensor in this format.</summary>
    static abstract DType DType { get; }

    /// <summary>log₂ of the offset of the unsigned codes, 0 for none.</summary>
    static abstract int OffsetShift { get; }

    /// <summary>Writes the unsigned codes of one block of the file, in input order.</summary>
    static abstract void ReadCodes(byte* block, byte* codes);
}

/// <summary>
/// How unsigned codes lie in a panel: per block of 32 inputs, groups of [16 rows, 4 inputs], so that one vector of a group meets 4 broadcast
/// inputs and every 32-bit lane sums its own row.
/// </summary>
internal unsafe interface ICodes
{
    /// <summary>Bits of a code as packed.</summary>
    static abstract int Bits { get; }

    /// <summary>Bits of a code when it is unpacked; other than <see cref="Bits"/> where unpacking looks it up in <see cref="Table"/>.</summary>
    static abstract int UnpackedBits { get; }

    /// <summary>16 bytes that codes of up to 4 bits are looked up in, the first the lowest; 0 where they are not.</summary>
    static virtual UInt128 Table => 0;

    /// <summary>Which codes of zero are left out.</summary>
    static virtual CodeSparsity Sparsity => CodeSparsity.None;

    /// <summary>Packs the codes [16, 32] of a block.</summary>
    static abstract void Pack(byte* codes, byte* packed);

    /// <summary>Unpacks a block to bytes: 8 groups, <paramref name="groupStride"/> bytes apart.</summary>
    static abstract void Unpack(byte* packed, byte* groups, int groupStride);
}

/// <summary>How the scales of a panel lie: in units of one or several blocks, about as compact as in the file.</summary>
internal unsafe interface IScales
{
    /// <summary>Blocks of 32 inputs that a unit covers.</summary>
    static abstract int BlocksPerUnit { get; }

    /// <summary>Bytes of a unit of 16 rows.</summary>
    static abstract int UnitBytes { get; }

    /// <summary>There are minima.</summary>
    static abstract bool HasMinimum { get; }

    /// <summary>A scale covers 16 inputs.</summary>
    static abstract bool HalfBlocks { get; }

    /// <summary>
    /// Writes the scales of a unit as float32: per block [16] of scales, and <paramref name="second"/> floats further [16] of minima or of the
    /// scales of the second half, or where there are both, of these scales and then of the minima of each half; the next block follows
    /// <paramref name="stride"/> floats further.
    /// </summary>
    static abstract void Unpack(byte* unit, float* scales, int second, int stride);
}

/// <summary>Scales that a file has in its blocks, a unit in each.</summary>
internal unsafe interface IFileScales : IScales
{
    /// <summary>Takes the scales of one row from a block of the file.</summary>
    static abstract void Pack(byte* block, byte* unit, int row);
}
