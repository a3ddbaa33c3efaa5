using System.Collections.Concurrent;
using Engine;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Plans;
using Engine.Transforms.Pruning;

namespace Host.Inspection;

/// <summary>Describes a checkpoint, also one whose family is not supported, and looks in its data for what is redundant.</summary>
internal static class CheckpointInspector
{
    /// <summary>Reads all tensors, unless <paramref name="scan"/> is off.</summary>
    public static InspectResult Inspect(Checkpoint checkpoint, bool scan, Action<double> progress, CancellationToken cancellationToken)
    {
        TensorView[] tensors = [.. checkpoint.TensorNames.Select(name => checkpoint[name])];
        TensorScan?[] scans = new TensorScan?[tensors.Length];
        if (scan)
        {
            ScanAll(tensors, scans, progress, cancellationToken);
        }
        (PlanDescription? plan, string? reason) = DescribePlan(checkpoint, scan);
        return new InspectResult(
            checkpoint.Path,
            plan?.Family ?? FamilyName(checkpoint),
            plan is not null,
            reason,
            plan,
            tensors.Sum(static tensor => tensor.ElementCount),
            tensors.Sum(static tensor => tensor.ByteLength),
            [.. tensors.GroupBy(TensorViews.FormatName).Select(FormatOf).OrderByDescending(static format => format.Bytes)],
            [.. tensors.Select((tensor, i) => Describe(tensor, scans[i], scan ? MatrixForms.Of(checkpoint, tensor.Name) : null))],
            scan ? FindSharing(tensors, scans) : null,
            scan ? FindSparsity(tensors, scans) : null);
    }

    private static void ScanAll(TensorView[] tensors, TensorScan?[] scans, Action<double> progress, CancellationToken cancellationToken)
    {
        long all = Math.Max(1, tensors.Sum(static tensor => tensor.ByteLength)), done = 0;
        ParallelOptions options = new() { CancellationToken = cancellationToken, MaxDegreeOfParallelism = Environment.ProcessorCount };
        try
        {
            // The largest first, so that no thread is left with it at the end.
            int[] order = [.. Enumerable.Range(0, tensors.Length).OrderByDescending(i => tensors[i].ByteLength)];
            Parallel.ForEach(Partitioner.Create(order, EnumerablePartitionerOptions.NoBuffering), options, i =>
            {
                scans[i] = TensorScan.Of(tensors[i], cancellationToken);
                progress((double)Interlocked.Add(ref done, tensors[i].ByteLength) / all);
            });
        }
        catch (AggregateException failed) when (failed.InnerException is EngineException or OperationCanceledException)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failed.InnerException);
        }
    }

    private static (PlanDescription? Plan, string? Reason) DescribePlan(Checkpoint checkpoint, bool scan)
    {
        try
        {
            Checkpoint compacted = scan ? CompactedCheckpoint.Apply(checkpoint) : checkpoint;
            return (PlanDescription.Of(ModelPlanReader.Read(compacted), compacted) with { RemovedNeurons = scan ? (compacted as CompactedCheckpoint)?.RemovedNeurons ?? 0 : null }, null);
        }
        catch (EngineException unsupported)
        {
            // The tensors can still be listed, and that is what one needs to see why.
            return (null, unsupported.Message);
        }
    }

    private static string FamilyName(Checkpoint checkpoint)
    {
        try
        {
            return checkpoint.Config["model_type"]?.ToString() ?? "unknown";
        }
        catch (EngineException)
        {
            // A lone safetensors file has no configuration; the reason why it cannot be run says so.
            return "unknown";
        }
    }

    private static FormatResult FormatOf(IGrouping<string, TensorView> tensors) => new(
        tensors.Key, tensors.Count(), tensors.Sum(static tensor => tensor.ElementCount),
            tensors.Sum(static tensor => tensor.ByteLength));

    private static TensorResult Describe(TensorView tensor, TensorScan? scan, string? runsAs) =>
        new(tensor.Name, tensor.FormatName(), tensor.Shape, tensor.ByteLength, scan?.Zeros, scan?.ZeroRows, scan?.TwoOfFour, runsAs);

    private static List<SharedResult> FindSharing(TensorView[] tensors, TensorScan?[] scans)
    {
        List<(string Name, (string Digest, long Bytes, string Format) Content)> parts = [];
        for (int i = 0; i < tensors.Length; i++)
        {
            // A tensor of zeros, or a norm's gain of ones, equals others by its nature and not by design.
            if (tensors[i].Shape.Length < 2 || scans[i]!.Zeros == tensors[i].ElementCount)
            {
                continue;
            }
            IReadOnlyList<string> digests = scans[i]!.SliceDigests;
            for (int slice = 0; slice < digests.Count; slice++)
            {
                string name = digests.Count == 1 ? tensors[i].Name : $"{tensors[i].Name}[{slice}]";
                parts.Add((name, (digests[slice], tensors[i].ByteLength / digests.Count, tensors[i].FormatName())));
            }
        }
        IEnumerable<IGrouping<(string Digest, long Bytes, string Format), string>> groups =
            parts.GroupBy(static part => part.Content, static part => part.Name);
        return [.. groups.Where(static same => same.Count() > 1).Select(static same => new SharedResult([.. same], same.Key.Bytes))];
    }

    private static SparsityResult FindSparsity(TensorView[] tensors, TensorScan?[] scans)
    {
        long elements = 0, zeros = 0, zeroRows = 0;
        List<string> twoOfFour = [];
        for (int i = 0; i < tensors.Length; i++)
        {
            // Matrices: zeros of a bias or a norm are no sparsity that a kernel could use.
            if (tensors[i].Shape.Length > 1)
            {
                elements += tensors[i].ElementCount;
                zeros += scans[i]!.Zeros;
                zeroRows += scans[i]!.ZeroRows;
                if (scans[i]!.TwoOfFour)
                {
                    twoOfFour.Add(tensors[i].Name);
                }
            }
        }
        return new SparsityResult(zeros, elements == 0 ? 0 : (double)zeros / elements, zeroRows, twoOfFour);
    }
}
