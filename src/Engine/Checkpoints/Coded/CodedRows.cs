using System.Diagnostics.CodeAnalysis;

namespace Engine.Checkpoints;

/// <summary>A run of the rows of a coded matrix, as a matrix of its own: one of the projections that a file keeps as one.</summary>
internal sealed class CodedRows : CodedMatrix
{
    private readonly CodedMatrix whole;
    private readonly long first;

    /// <summary>Rows <paramref name="first"/> … first + <paramref name="count"/> − 1 of a matrix that has them.</summary>
    [SetsRequiredMembers]
    public CodedRows(CodedMatrix whole, long first, long count)
    {
        (this.whole, this.first) = (whole, first);
        Name = whole.Name;
        Format = whole.Format;
        Rows = count;
        Columns = whole.Columns;
        Bits = whole.Bits;
        Numbers = whole.Numbers;
        Table = whole.Table;
        GroupColumns = whole.GroupColumns;
        Zero = whole.Zero;
        Order = whole.Order;
        Parts = whole.Parts;
    }

    /// <summary>The rows' share of the bytes of all parts.</summary>
    public override long StoredBytes => (long)((Int128)whole.StoredBytes * Rows / whole.Rows);

    /// <inheritdoc/>
    public override void ReadCodes(long row, Span<byte> codes) => whole.ReadCodes(first + row, codes);

    /// <inheritdoc/>
    public override void ReadScales(long row, Span<float> scales, Span<int> zeros) => whole.ReadScales(first + row, scales, zeros);

    /// <inheritdoc/>
    public override bool ContentEquals(CodedMatrix other) =>
        other is CodedRows rows && rows.first == first && rows.Rows == Rows && whole.ContentEquals(rows.whole);
}
