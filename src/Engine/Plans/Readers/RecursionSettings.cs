namespace Engine.Plans.Readers;

/// <summary>Which layers of the unrolled model have the weights of which (Bae et al. 2025, section 2.1; mixture_of_recursions, <c>sharing</c>).</summary>
internal enum LayerSharing
{
    /// <summary>0 1 2, 0 1 2, 0 1 2.</summary>
    Cycle,
    /// <summary>0 0 0, 1 1 1, 2 2 2.</summary>
    Sequence,
    /// <summary>As <see cref="Cycle"/>, with a first and a last layer of their own.</summary>
    MiddleCycle,
    /// <summary>As <see cref="Sequence"/>, with a first and a last layer of their own.</summary>
    MiddleSequence,
}

/// <summary>The shape of a recursive model, checked.</summary>
/// <param name="Layers">Layers that are run, L.</param>
/// <param name="Recursions">How often weights are used, R.</param>
/// <param name="BaseDepth">Layers of one recursion, b.</param>
/// <param name="Sharing">Which layers are the same.</param>
/// <param name="SharesNorms">Norms are shared as the other weights are.</param>
/// <param name="SharesKv">Later uses of a layer read the keys and values of the first.</param>
/// <param name="Router">The section <c>mor</c> where tokens are routed, else null.</param>
internal sealed record RecursionSettings(
    int Layers, int Recursions, int BaseDepth, LayerSharing Sharing, bool SharesNorms, bool SharesKv, ConfigReader? Router)
{
    // Bounds the unrolled plan: with weights stored once, no tensors bound it.
    private const int MostLayers = 4096;

    /// <summary>There are a first and a last layer that nobody shares.</summary>
    public bool HasOuterLayers => Sharing is LayerSharing.MiddleCycle or LayerSharing.MiddleSequence;

    /// <summary>Each recursion runs its layers once, one recursion after the other.</summary>
    public bool Cycles => Sharing is LayerSharing.Cycle or LayerSharing.MiddleCycle;

    /// <summary>The layer with the weights of layer <paramref name="layer"/>: the first that has them.</summary>
    public int Owner(int layer)
    {
        int first = HasOuterLayers ? 1 : 0;
        int inner = layer - first;
        if (Recursions == 1 || (HasOuterLayers && (layer == 0 || layer == Layers - 1)))
        {
            return layer;
        }
        return first + (Cycles ? inner % BaseDepth : Recursions * (inner / Recursions));
    }

    /// <summary>Reads and checks the settings; null where the file says that the model is not recursive.</summary>
    /// <exception cref="EngineException">They contradict each other or ask for what is not computed.</exception>
    public static RecursionSettings? Read(RecursionSource source, ConfigReader config)
    {
        ConfigReader recursive = source.Recursive;
        KeyTable.Require(recursive, "enable", "num_recursion", "sharing", "base_depth", "ln_share", "initialization");
        if (source.Relaxation?.Flag("enable", false) == true)
        {
            throw source.Relaxation.Error(
                "enable", "relaxed sharing (lora, dora, recursion_encoding, adaption_prompt) is not supported; found true");
        }
        bool routes = source.Router?.Flag("enable", false) == true;
        bool sharesKv = ReadKvSharing(source);
        if (!recursive.Flag("enable", true))
        {
            return !routes && !sharesKv
                ? null
                : throw recursive.Error("enable", "routing or sharing of keys and values without recursion is not supported; found false");
        }

        LayerSharing sharing = recursive.Text("sharing", null) switch
        {
            "cycle" => LayerSharing.Cycle,
            "sequence" => LayerSharing.Sequence,
            "middle_cycle" => LayerSharing.MiddleCycle,
            "middle_sequence" => LayerSharing.MiddleSequence,
            null => throw recursive.Error("sharing", "the key is missing"),
            var other => throw recursive.Error("sharing", $"expected cycle, sequence, middle_cycle or middle_sequence; found '{other}'"),
        };
        int recursions = recursive.Count("num_recursion");
        int layers = config.Count("num_hidden_layers");
        if (layers > MostLayers)
        {
            throw config.Error("num_hidden_layers", $"expected at most {MostLayers} layers in a recursive model; found {layers}");
        }
        int? given = recursive.CountOrNull("base_depth");
        int baseDepth = recursions == 1
            ? CutDepth(recursive, sharing, layers, given)
            : Divide(recursive, sharing, layers, recursions, given);
        var settings = new RecursionSettings(
            recursions == 1 ? baseDepth : layers, recursions, baseDepth, sharing, recursive.Flag("ln_share", true), sharesKv,
            routes ? source.Router : null);
        settings.Check(source);
        return settings;
    }

    /// <summary>Of one recursion, training keeps the first <c>base_depth</c> layers and shares nothing.</summary>
    private static int CutDepth(ConfigReader recursive, LayerSharing sharing, int layers, int? given)
    {
        if (sharing is not (LayerSharing.Cycle or LayerSharing.Sequence))
        {
            throw recursive.Error("sharing", "with num_recursion 1 only cycle and sequence have a meaning");
        }
        int depth = given ?? throw recursive.Error("base_depth", "the key is missing; with num_recursion 1 it is the number of layers");
        return depth <= layers
            ? depth
            : throw recursive.Error("base_depth", $"expected at most num_hidden_layers, {layers}; found {depth}");
    }

    private static int Divide(ConfigReader recursive, LayerSharing sharing, int layers, int recursions, int? given)
    {
        bool middle = sharing is LayerSharing.MiddleCycle or LayerSharing.MiddleSequence;
        int inner = middle ? layers - 2 : layers;
        if (inner < recursions || inner % recursions != 0)
        {
            throw recursive.Error(
                "num_recursion", $"expected a divisor of the {inner} layers that are shared{(middle ? " (all but two)" : "")}; found {recursions}");
        }
        int depth = inner / recursions;
        return given is null || given == depth
            ? depth
            : throw recursive.Error("base_depth", $"{inner} layers in {recursions} recursions are {depth} each; found {given}");
    }

    private static bool ReadKvSharing(RecursionSource source)
    {
        bool? enabled = null;
        foreach (ConfigReader section in source.KvSharing)
        {
            KeyTable.Require(section, "enable", "num_recursion", "sharing", "base_depth", "update_cache");
            bool here = section.Flag("enable", false);
            if (enabled is not null && enabled != here)
            {
                throw section.Error("enable", $"the settings of the run say {(enabled.Value ? "true" : "false")}; found {(here ? "true" : "false")}");
            }
            enabled = here;
            if (here && section.Flag("update_cache", false))
            {
                throw section.Error("update_cache", "the hybrid of shared and recursion-wise keys and values is not supported; found true");
            }
        }
        return enabled == true;
    }

    private void Check(RecursionSource source)
    {
        if (SharesKv && Sharing == LayerSharing.MiddleSequence)
        {
            throw source.KvSharing[0].Error("enable", "keys and values cannot be shared under middle_sequence; no reference defines it");
        }
        if (SharesKv)
        {
            foreach (ConfigReader section in source.KvSharing)
            {
                Agree(section, "num_recursion", Recursions);
                Agree(section, "base_depth", BaseDepth);
                if (section.Text("sharing", null) is { } text && text != source.Recursive.Text("sharing", null))
                {
                    throw section.Error("sharing", $"expected {source.Recursive.Text("sharing", null)}, as for the weights; found '{text}'");
                }
            }
        }
        if (Router is not null && !Cycles)
        {
            throw source.Recursive.Error("sharing", "tokens can be routed under cycle and middle_cycle only");
        }
        if (Router is not null && Recursions == 1)
        {
            throw source.Recursive.Error("num_recursion", "expected at least 2 where tokens are routed; found 1");
        }

        static void Agree(ConfigReader section, string key, int expected)
        {
            if (section.CountOrNull(key) is { } found && found != expected)
            {
                throw section.Error(key, $"expected {expected}, as for the weights; found {found}");
            }
        }
    }
}
