using Engine.Checkpoints;
using Engine.Plans;

namespace Engine.Execution;

/// <summary>What an executor holds on its device: packed weights and activations, freed together in reverse order.</summary>
internal sealed class DeviceArena(IBackend backend, Checkpoint checkpoint, int maxRows) : IDisposable
{
    private readonly Stack<IDisposable> owned = new();
    private readonly List<DeviceWeights> weights = [];
    private readonly Dictionary<(char Role, int Width), Activations> scratch = [];

    public IBackend Backend => backend;

    public Checkpoint Checkpoint => checkpoint;

    /// <summary>The most rows that operations work on at a time.</summary>
    public int MaxRows => maxRows;

    /// <summary>Bytes of weights that are packed now: experts may come and go.</summary>
    public long WeightBytes => weights.Sum(static loaded => loaded.Bytes);

    /// <summary>Takes over weights.</summary>
    public DeviceWeights Own(DeviceWeights loaded)
    {
        owned.Push(loaded);
        weights.Add(loaded);
        return loaded;
    }

    /// <summary>Packs a linear map.</summary>
    public DeviceWeights Linear(LinearPlan plan) => Own(backend.LoadLinear(plan, checkpoint));

    /// <summary>Loads a norm, where there is one.</summary>
    public DeviceWeights? Norm(NormPlan? plan, int width) => plan is null ? null : Own(backend.LoadNorm(plan, width, checkpoint));

    /// <summary>Makes room for activations that nothing else uses.</summary>
    public Activations Allocate(int capacity, int width)
    {
        Activations buffer = backend.Allocate(capacity, width);
        owned.Push(buffer);
        return buffer;
    }

    /// <summary>Takes over room for a router's choices.</summary>
    public ExpertSelection Own(ExpertSelection selection)
    {
        owned.Push(selection);
        return selection;
    }

    /// <summary>
    /// The activations for a role and width, with this many rows in use: layers of one width share them; pruned layers of other widths get their own.
    /// </summary>
    public Activations Scratch(char role, int width, int rows = 0)
    {
        if (!scratch.TryGetValue((role, width), out Activations? buffer))
        {
            scratch[(role, width)] = buffer = Allocate(maxRows, width);
        }
        buffer.Rows = rows;
        return buffer;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        while (owned.TryPop(out IDisposable? resource))
        {
            resource.Dispose();
        }
    }
}
