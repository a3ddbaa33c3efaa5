namespace Engine.Cpu.Matmul;

/// <summary>Where the panels of a matrix lie: one after another, all of one size or each of its own.</summary>
internal readonly struct PanelLayout
{
    private readonly long size;
    private readonly long[]? starts; // One more than there are panels.

    /// <summary>Panels of one size.</summary>
    /// <param name="panels">How many.</param>
    /// <param name="size">Bytes of each, a multiple of 64.</param>
    public PanelLayout(int panels, long size)
    {
        this.size = size;
        Panels = panels;
        Bytes = panels * size;
    }

    /// <summary>Panels that differ.</summary>
    /// <param name="sizes">Bytes of each, rounded up to multiples of 64 here; a vector may be read past the last.</param>
    /// <param name="before">Bytes before the first.</param>
    public PanelLayout(ReadOnlySpan<long> sizes, long before = 0)
    {
        const long Line = 64;
        starts = new long[sizes.Length + 1];
        starts[0] = (before + Line - 1) & -Line;
        for (int panel = 0; panel < sizes.Length; panel++)
        {
            starts[panel + 1] = starts[panel] + ((sizes[panel] + Line - 1) & -Line);
        }
        Panels = sizes.Length;
        Bytes = starts[^1] + Line;
    }

    /// <summary>How many there are.</summary>
    public int Panels { get; }

    /// <summary>Bytes of all.</summary>
    public long Bytes { get; }

    /// <summary>Bytes that the layout itself takes.</summary>
    public long TableBytes => (starts?.Length ?? 0) * (long)sizeof(long);

    /// <summary>Where a panel starts.</summary>
    public long Start(int panel) => starts is null ? panel * size : starts[panel];

    /// <summary>Bytes of a panel, a multiple of 64.</summary>
    public long Size(int panel) => starts is null ? size : starts[panel + 1] - starts[panel];
}
