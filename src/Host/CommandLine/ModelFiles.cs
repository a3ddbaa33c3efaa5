using Engine;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Transforms;

namespace Host.CommandLine;

/// <summary>Opens what <c>-m</c> names: one model, or several ParScale models that become one.</summary>
internal static class ModelFiles
{
    /// <summary>Families that a set of streams can come from; a plain Qwen2 is the one-stream model.</summary>
    private static readonly string[] combinable = ["parscale", "qwen2"];

    /// <summary>Opens the models.</summary>
    /// <param name="paths">One or more.</param>
    /// <exception cref="EngineException">One cannot be read, or several do not belong together. Nothing stays open.</exception>
    public static Checkpoint Open(IReadOnlyList<string> paths)
    {
        if (paths.Count == 1)
        {
            return CheckpointFile.Open(paths[0]);
        }
        List<Checkpoint> parts = [];
        try
        {
            foreach (string path in paths)
            {
                parts.Add(CheckpointFile.Open(path));
            }
            RequireStreamSets(parts);
        }
        catch
        {
            parts.ForEach(static part => part.Dispose());
            throw;
        }
        return StreamSets.Combine(parts);
    }

    private static void RequireStreamSets(IReadOnlyList<Checkpoint> parts)
    {
        Dictionary<int, string> found = [];
        foreach (Checkpoint part in parts)
        {
            ModelPlan plan = ModelPlanReader.Read(part);
            if (!combinable.Contains(plan.Family))
            {
                throw new EngineException(
                    $"several models can be given where they are ParScale models over one backbone, and this is {plan.Family}", part.Path, "-m");
            }
            int streams = plan.Streams?.Sets[0].Count ?? 1;
            if (!found.TryAdd(streams, part.Path))
            {
                throw new EngineException(
                    $"expected another number of streams than {found[streams]} has, or nothing could choose between them; found {streams} again",
                    part.Path, "-m");
            }
        }
    }
}
