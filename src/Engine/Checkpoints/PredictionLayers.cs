using System.Globalization;

namespace Engine.Checkpoints;

/// <summary>Layers behind a model's last, which predict further tokens (DeepSeek-V3, section 2.2) and which inference can do without.</summary>
internal static class PredictionLayers
{
    /// <summary>How many there are where no key says, as in <c>configuration_deepseek.py</c>.</summary>
    public const int UsualCount = 1;

    /// <summary>A tensor belongs to one of them.</summary>
    /// <param name="tensor">Its name in Hugging Face's vocabulary.</param>
    /// <param name="layers">Layers of the model.</param>
    /// <param name="count">Layers behind them.</param>
    public static bool Contains(string tensor, int layers, int count)
    {
        const string start = "model.layers.";
        if (!tensor.StartsWith(start, StringComparison.Ordinal))
            return false;
        ReadOnlySpan<char> rest = tensor.AsSpan(start.Length);
        int dot = rest.IndexOf('.');
        return dot > 0 && int.TryParse(rest[..dot], NumberStyles.None, CultureInfo.InvariantCulture, out int layer)
            && layer >= layers && layer < (long)layers + count;
    }
}
