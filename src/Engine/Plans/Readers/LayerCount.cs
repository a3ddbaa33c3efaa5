using Engine.Checkpoints;

namespace Engine.Plans.Readers;

/// <summary>How many layers there are.</summary>
internal static class LayerCount
{
    /// <summary>Reads the number of layers, which cannot exceed the number of tensors: a check that bounds all later work.</summary>
    public static int Read(ConfigReader config, string key, Checkpoint checkpoint)
    {
        int layers = config.Count(key);
        return layers <= checkpoint.TensorNames.Count
            ? layers
            : throw config.Error(key, $"{layers} layers need more than the {checkpoint.TensorNames.Count} tensors that exist");
    }
}
