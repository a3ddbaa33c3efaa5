namespace Engine.Text.Tokenization.Patterns;

/// <summary>
/// A compiled regular expression over code points. Matching backtracks, as the dialect demands, within a budget that grows with the text,
/// so that no pattern of a hostile file can hang. Immutable; any number of threads may match at once.
/// </summary>
internal sealed class Pattern
{
    // Published patterns take 10 to 30 steps per character of the text.
    private const long BaseBudget = 1_000_000;
    private const long BudgetPerCharacter = 512;

    [ThreadStatic]
    private static Frame[]? pooled;

    private readonly Instruction[] program;
    private readonly CharacterSet? first;
    private readonly CharacterSet? leadingRun;

    private Pattern(string source, PatternNode node)
    {
        Source = source;
        program = PatternCompiler.Compile(node);
        first = PatternCompiler.FirstOf(node);
        if (program[0] is { Operation: Operation.Run, Minimum: <= 1, Maximum: PatternParser.Unbounded, Lazy: false } run)
            leadingRun = run.Set;
    }

    /// <summary>The expression as it was written.</summary>
    public string Source { get; }

    /// <summary>Compiles an expression.</summary>
    /// <param name="source">The expression, in the dialect of <see cref="PatternParser"/>.</param>
    /// <param name="file">The file that it comes from, for messages.</param>
    /// <param name="item">The place in the file, for messages.</param>
    /// <exception cref="EngineException">It is malformed, not supported, or too large.</exception>
    public static Pattern Compile(string source, string? file = null, string? item = null)
    {
        try
        {
            return new Pattern(source, PatternParser.Parse(source));
        }
        catch (FormatException exception)
        {
            throw new EngineException($"the regular expression is not usable: {exception.Message}", file, item, exception);
        }
    }

    /// <summary>Starts a scan of one text.</summary>
    public Scan Over(ReadOnlySpan<char> text) => new(this, text);

    /// <summary>Successive matches in one text.</summary>
    internal ref struct Scan
    {
        private readonly Pattern pattern;
        private readonly ReadOnlySpan<char> text;
        private Frame[] stack;
        private long budget;
        private int next;

        internal Scan(Pattern pattern, ReadOnlySpan<char> text)
        {
            this.pattern = pattern;
            this.text = text;
            stack = pooled ??= new Frame[256];
            budget = BaseBudget + BudgetPerCharacter * text.Length;
        }

        /// <summary>
        /// Finds the next match, left to right and without overlap. An empty match is found too; the next one then begins later.
        /// </summary>
        /// <exception cref="EngineException">The pattern backtracks without reasonable bound on this text.</exception>
        public bool MoveNext(out int start, out int end)
        {
            CharacterSet? first = pattern.first;
            for (int position = next; position <= text.Length;)
            {
                int length = 1;
                int codePoint = position < text.Length ? CodePoints.At(text, position, out length) : -1;
                bool possible = first is null || (codePoint >= 0 && first.Contains(codePoint));
                if (possible && Match(0, position, 0, out end))
                {
                    start = position;
                    next = end > position ? end : position + length;
                    return true;
                }
                // Had a match begun inside the run that was just tried, it would have ended where a longer one from here could have.
                if (possible && pattern.leadingRun is { } run && codePoint >= 0 && run.Contains(codePoint))
                {
                    while (position < text.Length && run.Contains(CodePoints.At(text, position, out length)))
                        position += length;
                }
                else
                {
                    position += length;
                }
            }
            next = text.Length + 1;
            start = end = 0;
            return false;
        }

        private bool Match(int instruction, int position, int stackBase, out int end)
        {
            Instruction[] program = pattern.program;
            int top = stackBase;
            while (true)
            {
                if (--budget < 0)
                    throw new EngineException($"the regular expression {pattern.Source} backtracks without reasonable bound");
                ref readonly Instruction step = ref program[instruction];
                bool matched;
                switch (step.Operation)
                {
                    case Operation.Set:
                        matched = position < text.Length && step.Set!.Contains(CodePoints.At(text, position, out int setLength))
                            && Advance(ref position, setLength);
                        break;
                    case Operation.Literal:
                        matched = position < text.Length && step.CodePoint == CodePoints.At(text, position, out int literalLength)
                            && Advance(ref position, literalLength);
                        break;
                    case Operation.Run:
                        matched = Run(in step, instruction, ref position, ref top);
                        break;
                    case Operation.Try:
                        Push(ref top, new Frame(step.Target, position, position));
                        matched = true;
                        break;
                    case Operation.Jump:
                        instruction = step.Target;
                        continue;
                    case Operation.Lookahead:
                        if (Match(instruction + 1, position, top, out _) != step.Negative)
                        {
                            instruction = step.Target;
                            continue;
                        }
                        matched = false;
                        break;
                    case Operation.Atomic:
                        if (Match(instruction + 1, position, top, out int atomicEnd))
                        {
                            position = atomicEnd;
                            instruction = step.Target;
                            continue;
                        }
                        matched = false;
                        break;
                    case Operation.Assert:
                        matched = Holds(step.Assertion, position);
                        break;
                    default:
                        end = position;
                        return true;
                }
                if (matched)
                {
                    instruction++;
                    continue;
                }
                do
                {
                    if (top == stackBase)
                    {
                        end = 0;
                        return false;
                    }
                }
                while (!Resume(ref top, out instruction, out position));
            }
        }

        private static bool Advance(ref int position, int length)
        {
            position += length;
            return true;
        }

        /// <summary>Takes a run, and leaves a frame from which it gives back (or takes more) one code point at a time.</summary>
        private bool Run(in Instruction step, int instruction, ref int position, ref int top)
        {
            CharacterSet set = step.Set!;
            int count = 0, start = position, shortest = position, limit = step.Lazy ? step.Minimum : step.Maximum;
            while (count < limit && position < text.Length && set.Contains(CodePoints.At(text, position, out int length)))
            {
                position += length;
                if (++count == step.Minimum)
                    shortest = position;
            }
            budget -= count >> 2;
            if (count < step.Minimum)
                return false;
            if (step.Minimum == 0)
                shortest = start;
            if (!step.Lazy && position > shortest)
                Push(ref top, new Frame(instruction + 1, position, shortest));
            else if (step.Lazy && count < step.Maximum)
                Push(ref top, new Frame(~instruction, position, count));
            return true;
        }

        /// <summary>Goes back to the last frame; false where it turns out to have nothing left.</summary>
        private bool Resume(ref int top, out int instruction, out int position)
        {
            Frame frame = stack[--top];
            instruction = frame.Instruction;
            position = frame.Position;
            if (instruction < 0)
                return TakeOneMore(frame, ref top, out instruction, out position);
            if (position > frame.Shortest)
            {
                position = CodePoints.Before(text, position);
                if (position > frame.Shortest)
                    stack[top++] = frame with { Position = position };
            }
            return true;
        }

        private bool TakeOneMore(Frame frame, ref int top, out int instruction, out int position)
        {
            int run = ~frame.Instruction, taken = frame.Shortest + 1;
            ref readonly Instruction step = ref pattern.program[run];
            instruction = run + 1;
            position = frame.Position;
            if (position == text.Length || !step.Set!.Contains(CodePoints.At(text, position, out int length)))
                return false;
            position += length;
            if (taken < step.Maximum)
                stack[top++] = new Frame(~run, position, taken);
            return true;
        }

        private readonly bool Holds(PatternAssertion assertion, int position) => assertion switch
        {
            PatternAssertion.TextStart => position == 0,
            PatternAssertion.TextEnd => position == text.Length,
            PatternAssertion.LineStart => position == 0 || text[position - 1] == '\n',
            PatternAssertion.LineEnd => position == text.Length || text[position] == '\n',
            PatternAssertion.WordBoundary => IsWordBoundary(position),
            _ => !IsWordBoundary(position),
        };

        private readonly bool IsWordBoundary(int position)
        {
            bool before = position > 0 && UnicodeProperties.Word.Contains(CodePoints.At(text, CodePoints.Before(text, position), out _));
            bool after = position < text.Length && UnicodeProperties.Word.Contains(CodePoints.At(text, position, out _));
            return before != after;
        }

        private void Push(ref int top, Frame frame)
        {
            if (top == stack.Length)
            {
                Array.Resize(ref stack, stack.Length * 2);
                // Kept for the next scan of this thread unless a strange text made it large.
                if (stack.Length <= 1 << 16)
                    pooled = stack;
            }
            stack[top++] = frame;
        }
    }

    /// <summary>
    /// Where to go on after a failure: the target of a <see cref="Operation.Try"/>; behind a greedy run, which may still give back down to
    /// <paramref name="Shortest"/>; or, complemented, the lazy run itself, with the number that it has taken in its place.
    /// </summary>
    private readonly record struct Frame(int Instruction, int Position, int Shortest);
}
