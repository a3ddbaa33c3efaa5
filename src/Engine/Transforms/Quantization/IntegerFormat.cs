using System.Globalization;

namespace Engine.Transforms.Quantization;

/// <summary>Integers with a scale for neighbouring inputs of an output: w ≈ (code − zero) · scale.</summary>
/// <param name="Bits">Bits of a code: 4 or 8.</param>
/// <param name="GroupColumns">Neighbouring inputs that share a scale; null where all of an output do.</param>
/// <param name="IsSymmetric">Zero is the middle code, 2^(bits − 1); otherwise each group has its own.</param>
public sealed record IntegerFormat(int Bits, int? GroupColumns, bool IsSymmetric)
{
    private const int UsualGroup = 128;

    /// <summary>Codes there are.</summary>
    public int Codes => 1 << Bits;

    /// <summary>The zero of symmetric groups.</summary>
    public int MiddleCode => Codes / 2;

    /// <summary>
    /// Reads <c>int4</c> (groups of 128) or <c>int8</c> (one scale per output), and behind colons <c>gN</c> for groups of N or <c>channel</c>, and <c>asym</c>.
    /// </summary>
    /// <exception cref="EngineException">It is something else.</exception>
    public static IntegerFormat Parse(string text)
    {
        string[] parts = text.ToLowerInvariant().Split(':');
        IntegerFormat? format = parts[0] switch
        {
            "int4" => new IntegerFormat(4, UsualGroup, true),
            "int8" => new IntegerFormat(8, null, true),
            _ => null,
        };
        foreach (string part in parts.AsSpan(1))
        {
            format = part switch
            {
                _ when format is null => null,
                "channel" => format with { GroupColumns = null },
                "asym" => format with { IsSymmetric = false },
                ['g', .. var number] when int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out int group) && group > 0 =>
                    format with { GroupColumns = group },
                _ => null,
            };
        }
        return format ?? throw new EngineException(
            $"expected int4 or int8, with :gN, :channel or :asym behind; found '{text}'", item: "Quantize");
    }

    /// <summary>Groups of an output of so many inputs.</summary>
    public int GroupsOf(int columns) => columns / (GroupColumns ?? columns);

    /// <summary>Checks that the inputs of a matrix are whole groups, as readers of such files want them.</summary>
    /// <exception cref="EngineException">They are not.</exception>
    public void RequireFit(int columns, string tensor)
    {
        if (GroupColumns is { } group && columns % group != 0)
        {
            throw new EngineException(
                $"groups of {group} need a multiple of {group} inputs, found {columns}: choose smaller groups or one scale per output", item: tensor);
        }
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture, $"int{Bits}:{(GroupColumns is { } group ? $"g{group}" : "channel")}{(IsSymmetric ? "" : ":asym")}");
}
