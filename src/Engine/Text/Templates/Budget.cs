using System.Runtime.CompilerServices;
using System.Text;

namespace Engine.Text.Templates;

/// <summary>What one rendering has spent of its <see cref="ChatTemplateLimits"/>; spending more than allowed is a fault.</summary>
internal sealed class Budget(ChatTemplateLimits limits)
{
    // A list element costs its reference; an element made for the list (a number, a piece of a string) costs an object beside it.
    private const int UnitsPerReference = 4, UnitsPerObject = 32;
    private const int CharactersPerStep = 16;

    private const int MaxNesting = 5000;

    private long _steps, _allocated;
    private int _callDepth, _nesting;

    /// <summary>Pays for one node of the template or one element of a value.</summary>
    public void Step() => Steps(1);

    /// <summary>
    /// Pays for one node and bounds how deep nodes are evaluated within each other. A fault ends the rendering, so it need not
    /// leave.
    /// </summary>
    public void EnterNode()
    {
        Steps(1);
        if (++_nesting > MaxNesting || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
            throw new TemplateFault("the template nests too deeply");
    }

    public void LeaveNode() => _nesting--;

    public void Steps(long count)
    {
        _steps += count;
        if (_steps > limits.MaxSteps) throw new TemplateFault($"rendering takes more than {limits.MaxSteps} steps");
    }

    /// <summary>Pays for reading through so many characters.</summary>
    public void Scan(long characters) => Steps(1 + characters / CharactersPerStep);

    /// <summary>Pays for a text of this length; called before it is built wherever a template controls the length.</summary>
    public void Text(long length)
    {
        if (length > limits.MaxTextLength)
            throw new TemplateFault($"a text of {length} characters is longer than the limit of {limits.MaxTextLength}");
        Allocate(length);
    }

    /// <summary>Pays for adding to a text that is being built.</summary>
    public void Append(StringBuilder text, long added)
    {
        if (text.Length + added > limits.MaxTextLength)
            throw new TemplateFault($"a text is longer than the limit of {limits.MaxTextLength} characters");
        Allocate(added);
    }

    /// <summary>Pays for a list of existing values.</summary>
    public void References(long count) => Elements(count, UnitsPerReference);

    /// <summary>Pays for a list of values made for it.</summary>
    public void Objects(long count) => Elements(count, UnitsPerObject);

    public void EnterCall()
    {
        if (++_callDepth > limits.MaxCallDepth) throw new TemplateFault($"calls nest deeper than {limits.MaxCallDepth}");
    }

    public void LeaveCall() => _callDepth--;

    private void Elements(long count, int unitsPerElement)
    {
        Steps(count);
        Allocate(count * unitsPerElement);
    }

    private void Allocate(long units)
    {
        _allocated += units;
        if (_allocated > limits.MaxAllocation)
            throw new TemplateFault($"rendering builds more than {limits.MaxAllocation} units of values");
    }
}
