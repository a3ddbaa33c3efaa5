using System.Text;

namespace Tools.StoryGrammar;

/// <summary>
/// Expands a sentence template. <c>{name}</c> is a variable, <c>[a|b|]</c> one of several texts (possibly none),
/// <c>&lt;is|are&gt;</c> agrees with the number of heroes; all of them nest. What comes out is repaired by <see cref="Polish"/>: spaces, a/an, capitals.
/// </summary>
public static class Template
{
    private static readonly HashSet<string> speechVerbs = ["said", "asked", "called", "cried", "thought", "whispered", "shouted"];

    /// <summary>Expands <paramref name="template"/> into finished sentences.</summary>
    /// <exception cref="FormatException">A bracket is not closed.</exception>
    public static string Expand(string template, Dice dice, bool plural, Func<string, string> variable)
    {
        var raw = new StringBuilder();
        int position = 0;
        Append(template, ref position, raw, dice, plural, variable, end: "");
        return Polish(raw.ToString());
    }

    private static void Append(
        string template, ref int position, StringBuilder output, Dice dice, bool plural, Func<string, string> variable, string end)
    {
        while (position < template.Length)
        {
            char c = template[position];
            if (end.Contains(c, StringComparison.Ordinal))
                return;
            position++;
            switch (c)
            {
                case '{':
                    int close = template.IndexOf('}', position);
                    if (close < 0)
                        throw new FormatException($"'{{' is not closed in: {template}");
                    // A variable's value may itself be a template.
                    string value = variable(template[position..close]);
                    int start = 0;
                    Append(value, ref start, output, dice, plural, variable, end: "");
                    position = close + 1;
                    break;
                case '[':
                    List<string> choices = Branches(template, ref position, ']');
                    int chosen = 0;
                    Append(choices[dice.Next(choices.Count)], ref chosen, output, dice, plural, variable, end: "");
                    break;
                case '<':
                    List<string> numbers = Branches(template, ref position, '>');
                    int number = 0;
                    Append(numbers[plural ? 1 : 0], ref number, output, dice, plural, variable, end: "");
                    break;
                default:
                    output.Append(c);
                    break;
            }
        }
    }

    /// <summary>Splits a bracket's inside at its own bars, leaving nested brackets whole, and moves past the closing bracket.</summary>
    private static List<string> Branches(string template, ref int position, char closing)
    {
        var branches = new List<string>();
        int depth = 0, start = position;
        for (; position < template.Length; position++)
        {
            char c = template[position];
            if (depth == 0 && c == closing)
            {
                branches.Add(template[start..position++]);
                return branches;
            }

            if (depth == 0 && c == '|')
            {
                branches.Add(template[start..position]);
                start = position + 1;
            }
            else if (c is '[' or '<' or '{')
            {
                depth++;
            }
            else if (c is ']' or '>' or '}')
            {
                depth--;
            }
        }

        throw new FormatException($"'{closing}' is missing in: {template}");
    }

    /// <summary>Collapses spaces, chooses a or an, and gives each sentence and each quotation its capital.</summary>
    private static string Polish(string text)
    {
        string[] words = text.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        var output = new StringBuilder(text.Length + 8);
        bool sentenceStart = true;
        for (int i = 0; i < words.Length; i++)
        {
            string word = words[i];
            string bare = word.TrimStart('"');
            if (bare is "a" or "A" && i + 1 < words.Length && Articles.TakesAn(words[i + 1]))
                word += "n";
            bool quoteStart = word[0] == '"' && word.Length > 1;
            if (sentenceStart || quoteStart)
                word = Capitalise(word);
            if (i > 0)
                output.Append(' ');
            output.Append(word);
            sentenceStart = EndsSentence(word, words.AsSpan(i + 1));
        }

        return output.Replace(" ,", ",").Replace(" .", ".").ToString();
    }

    /// <summary>
    /// Whether a new sentence starts after <paramref name="word"/>: <c>said Tom</c> after <c>"Come in!"</c> does not start one, nor does
    /// <c>he said</c>.
    /// </summary>
    internal static bool EndsSentence(string word, ReadOnlySpan<string> next)
    {
        string bare = word.TrimEnd('"');
        if (bare.Length == 0 || bare[^1] is not ('.' or '!' or '?') || bare is "Mr." or "Mrs.")
            return false;
        if (bare[^1] == '.' || bare.Length == word.Length || next.Length < 2)
            return true;
        bool pronoun = next[0].ToLowerInvariant() is "he" or "she" or "it" or "they";
        return !speechVerbs.Contains(next[pronoun ? 1 : 0]);
    }

    private static string Capitalise(string word)
    {
        int letter = word[0] == '"' ? 1 : 0;
        return string.Concat(word.AsSpan(0, letter), char.ToUpperInvariant(word[letter]).ToString(), word.AsSpan(letter + 1));
    }
}
