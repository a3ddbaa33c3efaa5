namespace Engine;

/// <summary>How much memory packed experts may take where nobody has said so.</summary>
internal static class ExpertMemoryBound
{
    /// <summary>The part of memory that weights may take; the rest is for activations, keys and values, and whoever else is there.</summary>
    private const double Usable = 0.8;

    /// <summary>Null where all weights fit; else what the others leave, so that a model that is larger than memory still runs.</summary>
    /// <param name="experts">Bytes of all experts.</param>
    /// <param name="others">Bytes of all other weights.</param>
    /// <param name="available">Bytes of memory that the process may use.</param>
    public static long? For(long experts, long others, long available)
    {
        long room = (long)(Usable * available) - others;
        // A step packs the experts that it needs whatever the bound.
        return experts <= room || experts == 0 ? null : Math.Max(1, room);
    }
}
