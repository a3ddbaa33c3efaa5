namespace Engine.Text.Templates;

/// <summary>What stops the parsing or the rendering of a template; leaves the room as an <see cref="EngineException"/>.</summary>
internal sealed class TemplateFault(string reason, int line = 0, int column = 0) : Exception(reason)
{
    private int _line = line;

    /// <summary>
    /// Notes the line where none is known yet. As an exception filter it runs from the innermost node outwards, and catches
    /// nothing.
    /// </summary>
    public bool At(int line)
    {
        if (_line == 0) _line = line;
        return false;
    }

    public EngineException ToEngineException(string? file)
    {
        string? place = (_line, column) switch { (0, _) => null, (_, 0) => $"line {_line}", _ => $"line {_line}, column {column}" };
        return new EngineException(Message, file ?? "chat template", place, this);
    }
}
