namespace Engine.Text.Templates;

/// <summary>
/// What one rendering may spend. A template comes with a downloaded model and is not trusted: whatever it loops over or builds,
/// rendering ends with a text or an <see cref="EngineException"/>. The defaults leave two orders of magnitude to any template in use.
/// </summary>
public sealed record ChatTemplateLimits
{
    /// <summary>The limits that are used where the caller gives none.</summary>
    public static ChatTemplateLimits Default { get; } = new();

    /// <summary>The longest text that may be built, the rendered prompt included, in UTF-16 code units.</summary>
    public int MaxTextLength { get; init; } = 16 * 1024 * 1024;

    /// <summary>How many nodes of the template may be evaluated and elements visited.</summary>
    public long MaxSteps { get; init; } = 50_000_000;

    /// <summary>How much memory all values built on the way may take together, in units of two bytes.</summary>
    public long MaxAllocation { get; init; } = 256 * 1024 * 1024;

    /// <summary>How deep macros, call blocks and recursive loops may nest.</summary>
    public int MaxCallDepth { get; init; } = 200;
}
