using System.Runtime.InteropServices;
using Engine.Plans;

namespace Engine.Execution;

/// <summary>
/// The recursion of Mixture-of-Recursions, run as continuous depth-wise batching (Bae et al. 2025, section 3.1): in each step every row inside goes one depth
/// further, rows of all sequences and depths together wherever their weights are the same; a row that has no further to go waits only for earlier tokens of its own
/// sequence, because the layers behind the loop see all of them.
/// <para>A row inside is a <em>lane</em>: its place in the loop's own residual stream, and how far it is.</para>
/// </summary>
internal sealed class DepthLoop
{
    private readonly IBackend backend;
    private readonly DeviceArena arena;
    private readonly RecursionPlan recursion;
    private readonly LayerStack layers;
    private readonly DepthRouter router;
    private readonly (int First, int End)[] groups;
    private readonly int[] slotShifts;
    private readonly bool[] writesKv;

    /// <summary>x of every lane [lanes, hidden]; y of the depth before, where that is the input of the next (token choice).</summary>
    private readonly Activations stream;
    private readonly Activations? output;
    private readonly Lane[] lanes;
    private readonly Stack<int> freeLanes = new();

    /// <summary>Lanes in use, in the order of arrival, so that those of a track are in position order.</summary>
    private readonly List<int> order = [];
    private readonly Dictionary<(int Sequence, int Stream), int> trackOf = [];
    private readonly RowSet running = new();
    private readonly List<int> runningLanes = [], reached = [], routed = [];
    private readonly List<float> weights = [];
    private readonly List<List<int>> lanesOfTrack = [];
    private int trackCount;

    public DepthLoop(DeviceArena arena, ModelPlan plan, RecursionPlan recursion, LayerStack layers, DepthSelection selection)
    {
        this.arena = arena;
        this.recursion = recursion;
        this.layers = layers;
        backend = arena.Backend;
        if (plan.Experts().Any(static mixture => mixture.Router.Recurrence is not null))
        {
            throw new EngineException("the state of recurrent routers does not follow tokens that are routed to depths", item: "router");
        }
        slotShifts = new int[recursion.Depths];
        writesKv = new bool[recursion.Depths];
        groups = ReadDepths(plan.Layers);
        // The rows of a full step beside those of one more caller.
        lanes = new Lane[2 * arena.MaxRows];
        stream = arena.Allocate(lanes.Length, plan.HiddenSize);
        output = recursion.Router!.Kind == DepthRouterKind.TokenChoice ? arena.Allocate(lanes.Length, plan.HiddenSize) : null;
        stream.Rows = lanes.Length;
        if (output is not null)
        {
            output.Rows = lanes.Length;
        }
        for (int lane = lanes.Length - 1; lane >= 0; lane--)
        {
            freeLanes.Push(lane);
        }
        router = new DepthRouter(arena, recursion, selection, stream, lanes) { RunsAllAtFirst = recursion.Depths > 1 && !writesKv[1] };
    }

    /// <summary>First step of the loop.</summary>
    public int FirstStep => recursion.FirstStep;

    /// <summary>First step behind the loop.</summary>
    public int EndStep => recursion.EndStep;

    private bool ExpertChoice => output is null;

    /// <summary>
    /// Takes in the rows in the residual stream, gives them their weights, and runs every row inside whose track is in the step through its next depth.
    /// </summary>
    public void Advance(StepPlan step, RowSet entering)
    {
        MapTracks(step);
        Admit(step, entering);
        // The deepest first: where depths have weights of their own, no row may go through two of them.
        for (int group = groups.Length - 1; group >= 0; group--)
        {
            RunDepths(groups[group].First, groups[group].End, step);
        }
        if (ExpertChoice)
        {
            for (int depth = 1; depth < recursion.Depths; depth++)
            {
                Route(depth);
            }
        }
    }

    /// <summary>
    /// Brings rows that are through, and whose sequence has no earlier token inside, back into the residual stream: as many as fit.
    /// </summary>
    /// <returns>False where there are none.</returns>
    public bool TakeLeaving(StepPlan step, RowSet rows, List<LeavingRow> leaving)
    {
        rows.Clear();
        runningLanes.Clear();
        for (int track = 0; track < trackCount;)
        {
            int streams = StreamsFrom(step, track);
            int count = int.MaxValue;
            for (int stream = 0; stream < streams; stream++)
            {
                List<int> inside = lanesOfTrack[track + stream];
                int through = 0;
                while (through < inside.Count && lanes[inside[through]].State == LaneState.Through)
                {
                    through++;
                }
                count = Math.Min(count, through);
            }
            count = Math.Min(count, (arena.MaxRows - rows.Rows.Length) / streams);
            if (count > 0)
            {
                Leave(step, track, streams, count, rows, leaving);
            }
            track += streams;
        }
        if (rows.Rows.Length == 0)
        {
            return false;
        }
        backend.Gather(stream, CollectionsMarshal.AsSpan(runningLanes), layers.Residual);
        foreach (int lane in runningLanes)
        {
            Free(lane);
        }
        order.RemoveAll(lane => lanes[lane].State == LaneState.Free);
        return true;
    }

    /// <summary>Forgets the rows of a sequence.</summary>
    public void Drop(int sequence)
    {
        foreach (int lane in order)
        {
            if (lanes[lane].Track.Sequence == sequence)
            {
                Free(lane);
            }
        }
        order.RemoveAll(lane => lanes[lane].State == LaneState.Free);
    }

    /// <summary>Checks how the depths' slots lie, and finds the runs of depths whose steps have the same weights.</summary>
    private (int First, int End)[] ReadDepths(LayerMap map)
    {
        var found = new List<(int, int)>();
        int first = 0;
        for (int depth = 0; depth < recursion.Depths; depth++)
        {
            LayerStep start = Step(map, depth, 0);
            slotShifts[depth] = start.KvSlot - Step(map, 0, 0).KvSlot;
            writesKv[depth] = start.WritesKv;
            bool same = true;
            for (int j = 0; j < recursion.StepsPerDepth; j++)
            {
                LayerStep here = Step(map, depth, j), base0 = Step(map, 0, j), before = Step(map, Math.Max(0, depth - 1), j);
                if (here.KvSlot - base0.KvSlot != slotShifts[depth] || here.WritesKv != writesKv[depth]
                    || map.KvSlots[here.KvSlot] != map.KvSlots[base0.KvSlot])
                {
                    throw new EngineException("the KV slots of a recursion's depths are not laid out alike", item: $"step {recursion.FirstStep + j}, depth {depth}");
                }
                BlockPlan block = map.Blocks[here.Block], other = map.Blocks[before.Block];
                same &= ReferenceEquals(block.Attention, other.Attention) && ReferenceEquals(block.FeedForward, other.FeedForward)
                    && ReferenceEquals(block.Experts, other.Experts)
                    && here.AttentionNorm == before.AttentionNorm && here.FeedForwardNorm == before.FeedForwardNorm;
            }
            if (!same)
            {
                found.Add((first, depth));
                first = depth;
            }
        }
        found.Add((first, recursion.Depths));
        return [.. found];
    }

    private LayerStep Step(LayerMap map, int depth, int j) => map.Steps[recursion.FirstStep + depth * recursion.StepsPerDepth + j];

    private void MapTracks(StepPlan step)
    {
        trackOf.Clear();
        trackCount = step.Tracks.Length;
        for (int track = 0; track < trackCount; track++)
        {
            trackOf.Add((step.Tracks[track].Sequence, step.Tracks[track].Stream), track);
            if (track == lanesOfTrack.Count)
            {
                lanesOfTrack.Add([]);
            }
            lanesOfTrack[track].Clear();
        }
        foreach (int lane in order)
        {
            if (trackOf.TryGetValue((lanes[lane].Track.Sequence, lanes[lane].Track.Stream), out int track))
            {
                lanesOfTrack[track].Add(lane);
            }
        }
    }

    private void Admit(StepPlan step, RowSet entering)
    {
        int count = entering.Rows.Length;
        if (count == 0)
        {
            return;
        }
        if (count > freeLanes.Count)
        {
            throw new EngineException($"{count} rows enter, and there is room for {freeLanes.Count} more inside the recursion");
        }
        ReadOnlySpan<int> wanted = step.LogitRows;
        reached.Clear();
        foreach (RowRun run in entering.Runs)
        {
            Track track = step.Tracks[run.Track];
            for (int i = 0; i < run.RowCount; i++)
            {
                bool wants = !wanted.IsEmpty && wanted[0] == track.FirstRow + i;
                wanted = wants ? wanted[1..] : wanted;
                int lane = freeLanes.Pop();
                lanes[lane] = new Lane
                {
                    State = LaneState.Reached,
                    Track = track,
                    Row = entering.Rows[run.FirstRow + i],
                    Together = run.RowCount,
                    WantsLogits = wants,
                };
                reached.Add(lane);
                order.Add(lane);
                lanesOfTrack[run.Track].Add(lane);
            }
        }
        backend.Scatter(layers.Residual, CollectionsMarshal.AsSpan(reached), stream);
        if (output is not null)
        {
            backend.Scatter(layers.Residual, CollectionsMarshal.AsSpan(reached), output);
            router.ChooseDepths(CollectionsMarshal.AsSpan(reached));
        }
        else
        {
            Route(0);
        }
    }

    /// <summary>Expert choice: has the lanes that have reached a depth decided.</summary>
    private void Route(int depth)
    {
        routed.Clear();
        for (int track = 0; track < trackCount; track++)
        {
            foreach (int lane in lanesOfTrack[track])
            {
                if (lanes[lane].State == LaneState.Reached && lanes[lane].Depth == depth)
                {
                    routed.Add(lane);
                }
            }
        }
        router.Route(depth, CollectionsMarshal.AsSpan(routed));
    }

    /// <summary>Runs the lanes that enter one of the depths from <paramref name="first"/> on, whose weights are the same, in turns of what fits.</summary>
    private void RunDepths(int first, int end, StepPlan step)
    {
        running.Clear();
        runningLanes.Clear();
        // The deepest first: a row that went through a depth in an earlier turn must not be met again at the next.
        for (int depth = end - 1; depth >= first; depth--)
        {
            for (int track = 0; track < trackCount; track++)
            {
                bool open = false;
                foreach (int lane in lanesOfTrack[track])
                {
                    if (lanes[lane].State != LaneState.Enters || lanes[lane].Depth != depth)
                    {
                        continue;
                    }
                    if (running.Rows.Length == arena.MaxRows)
                    {
                        RunRows(first, step);
                        open = false;
                    }
                    if (!open)
                    {
                        running.AddRun(track, slotShifts[depth] - slotShifts[first], writesKv[depth]);
                        open = true;
                    }
                    running.AddRow(lanes[lane].Row with { Track = track });
                    runningLanes.Add(lane);
                }
            }
        }
        if (runningLanes.Count > 0)
        {
            RunRows(first, step);
        }
    }

    private void RunRows(int depth, StepPlan step)
    {
        ReadOnlySpan<int> members = CollectionsMarshal.AsSpan(runningLanes);
        backend.Gather(output ?? stream, members, layers.Residual);
        backend.SelectRows(running);
        int start = recursion.FirstStep + depth * recursion.StepsPerDepth;
        for (int i = start; i < start + recursion.StepsPerDepth; i++)
        {
            layers.Run(i, step, running);
        }
        weights.Clear();
        if (output is not null)
        {
            backend.Scatter(layers.Residual, members, output);
        }
        foreach (int index in runningLanes)
        {
            ref Lane lane = ref lanes[index];
            bool last = ExpertChoice ? lane.Unseen || lane.Depth + 1 == recursion.Depths : lane.Depth == lane.LastDepth;
            weights.Add(ExpertChoice ? lane.Weight : !last ? 0 : recursion.Router!.Weighted ? lane.Weight : 1);
            lane.DepthsRun += lane.Unseen ? 0 : 1;
            lane.Depth++;
            lane.State = last ? LaneState.Through : ExpertChoice ? LaneState.Reached : LaneState.Enters;
        }
        backend.ScatterAdd(layers.Residual, CollectionsMarshal.AsSpan(weights), members, stream);
        running.Clear();
        runningLanes.Clear();
    }

    private void Leave(StepPlan step, int track, int streams, int count, RowSet rows, List<LeavingRow> leaving)
    {
        int firstRow = rows.Rows.Length;
        for (int stream = 0; stream < streams; stream++)
        {
            rows.AddRun(track + stream);
            for (int i = 0; i < count; i++)
            {
                Lane lane = lanes[lanesOfTrack[track + stream][i]];
                rows.AddRow(lane.Row with { Track = track + stream });
                runningLanes.Add(lanesOfTrack[track + stream][i]);
                if (stream == 0)
                {
                    leaving.Add(new LeavingRow(firstRow + i, count, step.Tracks[track], lane.Row.Position, lane.DepthsRun, lane.WantsLogits));
                }
            }
            lanesOfTrack[track + stream].RemoveRange(0, count);
        }
    }

    private static int StreamsFrom(StepPlan step, int track)
    {
        int end = track + 1;
        while (end < step.Tracks.Length && step.Tracks[end].Stream > 0)
        {
            end++;
        }
        return end - track;
    }

    private void Free(int lane)
    {
        lanes[lane].State = LaneState.Free;
        freeLanes.Push(lane);
    }
}
