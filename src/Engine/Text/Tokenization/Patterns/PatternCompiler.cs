namespace Engine.Text.Tokenization.Patterns;

/// <summary>What one step of a <see cref="Pattern"/> does.</summary>
internal enum Operation
{
    /// <summary>Takes one code point of a set.</summary>
    Set,

    /// <summary>Takes one given code point.</summary>
    Literal,

    /// <summary>Takes a run of code points of a set; <see cref="Instruction.Lazy"/> as few as possible.</summary>
    Run,

    /// <summary>Goes on at the next instruction, or at the target when that fails.</summary>
    Try,

    /// <summary>Goes to the target.</summary>
    Jump,

    /// <summary>Runs what follows up to its <see cref="Match"/> without moving, then goes to the target.</summary>
    Lookahead,

    /// <summary>Runs what follows up to its <see cref="Match"/> once, then goes to the target.</summary>
    Atomic,

    /// <summary>A condition on the position.</summary>
    Assert,

    /// <summary>The end.</summary>
    Match,
}

/// <summary>One step of a pattern.</summary>
internal readonly record struct Instruction(Operation Operation)
{
    public CharacterSet? Set { get; init; }

    public int CodePoint { get; init; }

    public int Minimum { get; init; }

    public int Maximum { get; init; }

    public bool Lazy { get; init; }

    public bool Negative { get; init; }

    public PatternAssertion Assertion { get; init; }

    /// <summary>The index of another instruction.</summary>
    public int Target { get; init; }
}

/// <summary>Translates a syntax tree into instructions.</summary>
internal sealed class PatternCompiler
{
    // A repetition of a repetition multiplies; no published pattern comes near.
    private const int MaxInstructions = 20_000;

    private readonly List<Instruction> program = [];

    /// <exception cref="FormatException">The pattern is too large.</exception>
    public static Instruction[] Compile(PatternNode node)
    {
        var compiler = new PatternCompiler();
        compiler.Add(node);
        compiler.Emit(new Instruction(Operation.Match));
        return [.. compiler.program];
    }

    /// <summary>The code points that a match may begin with; null where it may be empty or begins with a condition.</summary>
    public static CharacterSet? FirstOf(PatternNode node)
    {
        switch (node)
        {
            case PatternNode.One one:
                return one.Set;
            case PatternNode.Literal literal:
                var single = new CharacterSet();
                single.Add(literal.CodePoint);
                return single;
            case PatternNode.Atomic atomic:
                return FirstOf(atomic.Item);
            case PatternNode.Repeat { Minimum: > 0 } repeat:
                return FirstOf(repeat.Item);
            case PatternNode.Choice choice:
                var union = new CharacterSet();
                foreach (PatternNode item in choice.Items)
                {
                    if (FirstOf(item) is not { } first)
                        return null;
                    union.UnionWith(first);
                }
                return union;
            case PatternNode.Sequence sequence:
                return FirstOfSequence(sequence);
            default:
                return null;
        }
    }

    private static CharacterSet? FirstOfSequence(PatternNode.Sequence sequence)
    {
        var union = new CharacterSet();
        foreach (PatternNode item in sequence.Items)
        {
            // An optional item lends its first code points and lets the next one lend its own.
            bool optional = item is PatternNode.Repeat { Minimum: 0 };
            if (FirstOf(optional ? ((PatternNode.Repeat)item).Item : item) is not { } first)
                return null;
            union.UnionWith(first);
            if (!optional)
                return union;
        }
        return null;
    }

    private int Emit(Instruction instruction)
    {
        if (program.Count == MaxInstructions)
            throw new FormatException($"the pattern needs more than {MaxInstructions} instructions");
        program.Add(instruction);
        return program.Count - 1;
    }

    private void Land(int index) => program[index] = program[index] with { Target = program.Count };

    private void Add(PatternNode node)
    {
        switch (node)
        {
            case PatternNode.One one:
                Emit(new Instruction(Operation.Set) { Set = one.Set });
                break;
            case PatternNode.Literal literal:
                Emit(new Instruction(Operation.Literal) { CodePoint = literal.CodePoint });
                break;
            case PatternNode.Sequence sequence:
                foreach (PatternNode item in sequence.Items)
                    Add(item);
                break;
            case PatternNode.Choice choice:
                AddChoice(choice);
                break;
            case PatternNode.Repeat { Item: PatternNode.One one } repeat:
                Emit(new Instruction(Operation.Run)
                {
                    Set = one.Set,
                    Minimum = repeat.Minimum,
                    Maximum = repeat.Maximum,
                    Lazy = repeat.Lazy,
                });
                break;
            case PatternNode.Repeat repeat:
                AddRepeat(repeat);
                break;
            case PatternNode.Atomic atomic:
                AddInner(new Instruction(Operation.Atomic), atomic.Item);
                break;
            case PatternNode.Lookahead lookahead:
                AddInner(new Instruction(Operation.Lookahead) { Negative = lookahead.Negative }, lookahead.Item);
                break;
            case PatternNode.Assertion assertion:
                Emit(new Instruction(Operation.Assert) { Assertion = assertion.Kind });
                break;
            default:
                throw new InvalidOperationException($"{node.GetType().Name} is not compiled");
        }
    }

    private void AddInner(Instruction head, PatternNode item)
    {
        int index = Emit(head);
        Add(item);
        Emit(new Instruction(Operation.Match));
        Land(index);
    }

    private void AddChoice(PatternNode.Choice choice)
    {
        var ends = new List<int>();
        for (int i = 0; i < choice.Items.Count - 1; i++)
        {
            int attempt = Emit(new Instruction(Operation.Try));
            Add(choice.Items[i]);
            ends.Add(Emit(new Instruction(Operation.Jump)));
            Land(attempt);
        }
        Add(choice.Items[^1]);
        ends.ForEach(Land);
    }

    private void AddRepeat(PatternNode.Repeat repeat)
    {
        for (int i = 0; i < repeat.Minimum; i++)
            Add(repeat.Item);
        if (repeat.Maximum == PatternParser.Unbounded)
        {
            int start = EmitAttempt(repeat.Lazy, out int attempt);
            Add(repeat.Item);
            Emit(new Instruction(Operation.Jump) { Target = start });
            Land(attempt);
            return;
        }
        var attempts = new List<int>();
        for (int i = repeat.Minimum; i < repeat.Maximum; i++)
        {
            EmitAttempt(repeat.Lazy, out int attempt);
            attempts.Add(attempt);
            Add(repeat.Item);
        }
        attempts.ForEach(Land);
    }

    /// <summary>
    /// Emits a choice between the next item and the end of the repetition; <paramref name="exit"/> is what must land there.
    /// </summary>
    private int EmitAttempt(bool lazy, out int exit)
    {
        int start = Emit(new Instruction(Operation.Try) { Target = program.Count + 2 });
        exit = start;
        if (lazy)
            exit = Emit(new Instruction(Operation.Jump));
        return start;
    }
}
