namespace Engine.Text.Templates;

/// <summary>
/// The variables of a block. Reading looks outwards; writing stays inside, which is why a <c>set</c> in a loop does not
/// outlive its turn. Loops, macros, call blocks, <c>with</c> and captured blocks open one; <c>if</c> does not. (One difference to jinja2
/// is known: there, a variable of the input that a scope assigns later is hidden from the blocks nested in it until then.)
/// </summary>
internal sealed class Scope(Scope? parent)
{
    private Dictionary<string, Value>? _variables;

    public Value? Find(string name)
    {
        for (Scope? scope = this; scope is not null; scope = scope.Parent)
        {
            if (scope._variables is not null && scope._variables.TryGetValue(name, out Value? value)) return value;
        }
        return null;
    }

    public void Set(string name, Value value) => (_variables ??= new Dictionary<string, Value>(StringComparer.Ordinal))[name] = value;

    private Scope? Parent => parent;
}
