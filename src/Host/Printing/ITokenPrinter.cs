using Engine.Generation;

namespace Host.Printing;

/// <summary>Shows a generation as it comes.</summary>
internal interface ITokenPrinter
{
    /// <summary>Before the first token.</summary>
    void Begin();

    /// <summary>The next token.</summary>
    void Add(in GeneratedToken token);

    /// <summary>After the last token.</summary>
    void End();
}
