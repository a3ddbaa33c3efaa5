using System.Globalization;

namespace Engine.Checkpoints;

/// <summary>Which weights of a matrix become zero: a part of them, or two of every four along the inputs.</summary>
public sealed record SparsityPattern
{
    /// <summary>Neighbouring inputs of <see cref="TwoOfFour"/>, and how many of them are kept.</summary>
    public const int GroupColumns = 4, Kept = 2;

    private SparsityPattern(double ratio, bool isTwoOfFour) => (Ratio, IsTwoOfFour) = (ratio, isTwoOfFour);

    /// <summary>Of every aligned four inputs of an output, two: what sparse tensor cores multiply (Mishra et al. 2021).</summary>
    public static SparsityPattern TwoOfFour { get; } = new(0.5, true);

    /// <summary>The part of the weights that become zero, above 0 and below 1.</summary>
    public double Ratio { get; }

    /// <summary>The pattern is <see cref="TwoOfFour"/>.</summary>
    public bool IsTwoOfFour { get; }

    /// <summary>A part of the weights, wherever they are.</summary>
    /// <exception cref="EngineException">It is not above 0 and below 1.</exception>
    public static SparsityPattern Unstructured(double ratio) => ratio is > 0 and < 1
        ? new SparsityPattern(ratio, false)
        : throw new EngineException(string.Create(CultureInfo.InvariantCulture, $"expected a part above 0 and below 1, found {ratio}"), item: "Prune");

    /// <summary>Reads <c>2:4</c> or a part such as <c>0.5</c>.</summary>
    /// <exception cref="EngineException">It is neither.</exception>
    public static SparsityPattern Parse(string text) => text switch
    {
        "2:4" => TwoOfFour,
        _ when double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double ratio) => Unstructured(ratio),
        _ => throw new EngineException($"expected 2:4 or a part such as 0.5, found '{text}'", item: "Prune"),
    };

    /// <summary>Checks that the inputs of a matrix are whole groups.</summary>
    /// <exception cref="EngineException">They are not.</exception>
    public void RequireFit(int columns, string tensor)
    {
        if (IsTwoOfFour && columns % GroupColumns != 0)
        {
            throw new EngineException($"two of four needs a multiple of {GroupColumns} inputs, found {columns}", item: tensor);
        }
    }

    /// <summary>How many of so many weights become zero.</summary>
    public int CountOf(int weights) => (int)Math.Round(Ratio * weights, MidpointRounding.ToEven);

    /// <inheritdoc/>
    public override string ToString() => IsTwoOfFour ? "2:4" : Ratio.ToString("R", CultureInfo.InvariantCulture);
}
