using Engine;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Transforms;

namespace Host.CommandLine;

/// <summary>Opens what <c>-m</c> names: one model, or several ParScale models that become one.</summary>
internal static class ModelFiles
{
    /// <summary>Opens the models.</summary>
    /// <param name="paths">One or more.</param>
    /// <param name="mask">Masks for the weights of the only one, or null.</param>
    /// <exception cref="EngineException">One cannot be read, or several do not belong together. Nothing stays open.</exception>
    public static Checkpoint Open(IReadOnlyList<string> paths, string? mask = null)
    {
        if (paths.Count == 1)
        {
            return CheckpointFile.Open(paths[0], mask);
        }
        List<Checkpoint> parts = [];
        try
        {
            foreach (string path in paths)
            {
                parts.Add(CheckpointFile.Open(path));
            }
        }
        catch
        {
            parts.ForEach(static part => part.Dispose());
            throw;
        }
        Checkpoint combined = StreamSets.Combine(parts);
        try
        {
            RequireDifferentCounts(combined, paths);
            return combined;
        }
        catch
        {
            combined.Dispose();
            throw;
        }
    }

    /// <summary>Opens the models, and refuses those that options do not fit.</summary>
    /// <param name="paths">One or more.</param>
    /// <param name="require">Throws for a model (its plan, its path) that does not fit; null where nothing is asked for.</param>
    /// <param name="mask">Masks for the weights of the only one, or null.</param>
    /// <exception cref="EngineException">As <see cref="Open(IReadOnlyList{string}, string?)"/>, and what <paramref name="require"/> throws. Nothing stays open.</exception>
    public static Checkpoint Open(IReadOnlyList<string> paths, Action<ModelPlan, string>? require, string? mask = null)
    {
        Checkpoint checkpoint = Open(paths, mask);
        try
        {
            require?.Invoke(ModelPlanReader.Read(checkpoint), checkpoint.Path);
            return checkpoint;
        }
        catch
        {
            checkpoint.Dispose();
            throw;
        }
    }

    /// <summary>Streams are chosen by their number.</summary>
    private static void RequireDifferentCounts(Checkpoint combined, IReadOnlyList<string> paths)
    {
        Dictionary<int, string> found = [];
        foreach ((StreamSetPlan set, string path) in ModelPlanReader.Read(combined).Streams!.Sets.Zip(paths))
        {
            if (!found.TryAdd(set.Count, path))
            {
                throw new EngineException(
                    $"expected another number of streams than {found[set.Count]} has, or nothing could choose between them; found {set.Count} again",
                    path, "-m");
            }
        }
    }
}
