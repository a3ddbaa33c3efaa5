using System.Collections.Immutable;
using Engine.Checkpoints;
using Engine.Plans;
using Engine.Transforms.Quantization;

namespace Engine.Compression;

/// <summary>A matrix of a checkpoint: a tensor, or one of the matrices of a tensor of several.</summary>
/// <param name="Tensor">Name of the tensor.</param>
/// <param name="Slice">Which of several, or null.</param>
internal readonly record struct MatrixPlace(string Tensor, int? Slice)
{
    /// <inheritdoc/>
    public override string ToString() => Slice is null ? Tensor : $"{Tensor}[{Slice}]";
}

/// <summary>A matrix that is compressed.</summary>
/// <param name="Place">Where it is stored.</param>
/// <param name="Rows">Outputs.</param>
/// <param name="Columns">Inputs.</param>
/// <param name="Transposed">It is stored as [inputs, outputs].</param>
/// <param name="Copies">Where else the same weights are stored: they stay the same.</param>
/// <param name="Stored">What its weights are stored as; where they become integers of a folder, their scales.</param>
internal sealed record TargetMatrix(MatrixPlace Place, int Rows, int Columns, bool Transposed, HashSet<MatrixPlace> Copies, DType Stored)
{
    /// <summary>Its weights become blocks of codes that are chosen here, not when a GGUF is written.</summary>
    public bool IsBlocks => QuantizedBlocks.Takes(Stored);
}

/// <summary>Matrices that are multiplied with the same rows.</summary>
/// <param name="Key">The first part of the linear map, by which it is known while the model runs.</param>
/// <param name="Inputs">Width of a row.</param>
/// <param name="IsExpert">The rows are those that a router sends there, which may be none.</param>
/// <param name="Matrices">The matrices.</param>
internal sealed record TargetInput(WeightRef Key, int Inputs, bool IsExpert, List<TargetMatrix> Matrices);

/// <summary>Matrices that are compressed together: those of a layer that no earlier layer has.</summary>
/// <param name="Inputs">Their inputs, in the order in which they run.</param>
internal sealed record TargetLayer(List<TargetInput> Inputs)
{
    /// <summary>The last step of the plan that runs one of them.</summary>
    public int LastStep { get; set; }
}

/// <summary>
/// The linear maps of a model's layers as matrices of its checkpoint. What layers share is one matrix, whether it is stored once or as copies, and copies stay
/// copies: a model must not lose by compression what it had in common.
/// </summary>
internal sealed class CompressionTargets
{
    private readonly Checkpoint checkpoint;
    private readonly Func<string, DType>? blocks;
    private readonly Dictionary<WeightRef, TargetInput> known = [];
    private readonly Dictionary<WeightRef, TargetLayer> layerOf = [];

    private CompressionTargets(Checkpoint checkpoint, Func<string, DType>? blocks, ModelPlan plan)
    {
        (this.checkpoint, this.blocks) = (checkpoint, blocks);
        Plan = plan;
    }

    /// <summary>The plan, in which copies are one.</summary>
    public ModelPlan Plan { get; }

    /// <summary>The layers.</summary>
    public List<TargetLayer> Layers { get; } = [];

    /// <summary>All matrices.</summary>
    public IEnumerable<TargetMatrix> Matrices => Layers.SelectMany(static layer => layer.Inputs).SelectMany(static input => input.Matrices);

    /// <summary>The model can be run up to a layer; otherwise it must be run as a whole.</summary>
    public bool CanStopEarly => Plan.Layers.Recursion is null && Plan.Streams is null && !Plan.Layers.ChangesResidual
        && Plan.Layers.Steps.All(static step => step.WritesKv) && Plan.Layers.Steps[0].KvSlot != LayerStep.NoKvSlot;

    /// <summary>Finds the matrices.</summary>
    /// <param name="checkpoint">The model.</param>
    /// <param name="any">Any are wanted; otherwise there is only the plan.</param>
    /// <param name="blocks">The types of GGUF that their codes are chosen for, by name; null where none are, or types are floats.</param>
    /// <exception cref="EngineException">The model is not supported, or its weights are codes already.</exception>
    public static CompressionTargets Find(Checkpoint checkpoint, bool any, Func<string, DType>? blocks = null)
    {
        ModelPlan stored = ModelPlanReader.ReadAsStored(checkpoint);
        CompressionTargets targets = new(checkpoint, blocks, ModelPlanReader.Read(checkpoint));
        for (int step = 0; any && step < stored.Layers.Steps.Length; step++)
        {
            TargetLayer layer = new([]);
            targets.Add(layer, step, targets.Block(targets.Plan, step), targets.Block(stored, step));
            if (layer.Inputs.Count > 0)
            {
                targets.Layers.Add(layer);
            }
        }
        return targets;
    }

    private BlockPlan Block(ModelPlan plan, int step) => plan.Layers.Blocks[plan.Layers.Steps[step].Block];

    private void Add(TargetLayer layer, int step, BlockPlan block, BlockPlan stored)
    {
        if (block.Attention is { } attention)
        {
            Add(layer, step, attention.Latent?.QueryDown, stored.Attention!.Latent?.QueryDown);
            Add(layer, step, attention.Latent?.Query, stored.Attention.Latent?.Query);
            Add(layer, step, attention.Qkv, stored.Attention.Qkv);
            Add(layer, step, attention.Output, stored.Attention.Output);
        }
        foreach ((LinearPlan linear, LinearPlan storedLinear) in block.Linears.Zip(stored.Linears))
        {
            Add(layer, step, linear, storedLinear);
        }
        if (block.FeedForward is { } feedForward)
        {
            Add(layer, step, feedForward.In, stored.FeedForward!.In);
            Add(layer, step, feedForward.Down, stored.FeedForward.Down);
        }
        if (block.Experts is not { } experts)
        {
            return;
        }
        IEnumerable<(int, int)> routed = experts.Map.Zip(stored.Experts!.Map).Where(static pair => pair.First >= 0);
        IEnumerable<(int, int)> shared = experts.Shared.Zip(stored.Experts.Shared, static (one, other) => (one.Slot, other.Slot));
        foreach ((int slot, int storedSlot) in routed.Concat(shared))
        {
            FeedForwardPlan expert = experts.Slots[slot], storedExpert = stored.Experts.Slots[storedSlot];
            if (expert.Width > 0)
            {
                Add(layer, step, expert.In, storedExpert.In, isExpert: true);
                Add(layer, step, expert.Down, storedExpert.Down, isExpert: true);
            }
        }
    }

    private void Add(TargetLayer layer, int step, LinearPlan? linear, LinearPlan? stored, bool isExpert = false)
    {
        if (linear is null || linear.Outputs == 0)
        {
            return;
        }
        if (linear.Parts.FirstOrDefault(static part => !part.IsPlain) is { } compressed)
        {
            throw new EngineException(
                "the linear map is a low-rank product or some rows already; expected a whole matrix", checkpoint.Path,
                compressed.Weight?.Tensor ?? compressed.LowRank?.A.Tensor);
        }
        WeightRef key = linear.Parts[0].Weight!;
        if (!known.TryGetValue(key, out TargetInput? input))
        {
            known[key] = input = new TargetInput(key, linear.Inputs, isExpert, []);
            layerOf[key] = layer;
            layer.Inputs.Add(input);
        }
        layerOf[key].LastStep = Math.Max(layerOf[key].LastStep, step);
        foreach ((LinearPart part, LinearPart storedPart) in linear.Parts.Zip(stored!.Parts))
        {
            MatrixPlace place = PlaceOf(part), copy = PlaceOf(storedPart);
            TargetMatrix? matrix = input.Matrices.Find(matrix => matrix.Place == place);
            if (matrix is null)
            {
                input.Matrices.Add(matrix = Describe(place, part.Weight!.Transposed, linear.Inputs));
            }
            if (copy != place)
            {
                matrix.Copies.Add(copy);
            }
        }
    }

    /// <summary>Where a part is stored: rows of a tensor of several matrices count through all of them where no slice is named.</summary>
    private MatrixPlace PlaceOf(LinearPart part)
    {
        WeightRef weight = part.Weight!;
        if (weight.Scales is not null)
        {
            throw new EngineException("the weights are MXFP4 codes already; expected floats", checkpoint.Path, weight.Tensor);
        }
        long[] shape = checkpoint[weight.Tensor].Shape;
        return new MatrixPlace(weight.Tensor, weight.Slice ?? (shape.Length == 3 && shape[1] > 0 ? (int)(weight.FirstRow / shape[1]) : null));
    }

    private TargetMatrix Describe(MatrixPlace place, bool transposed, int inputs)
    {
        TensorView tensor = checkpoint[place.Tensor];
        long[] shape = place.Slice is null ? tensor.Shape : tensor.Shape[1..];
        if (shape.Length != 2 || shape[transposed ? 0 : 1] != inputs || shape[0] * shape[1] > Array.MaxLength)
        {
            throw new EngineException(
                $"expected a matrix of {inputs} inputs that an array can hold, found {tensor.DescribeShape()}", checkpoint.Path, place.Tensor);
        }
        return new TargetMatrix(place, (int)shape[transposed ? 1 : 0], inputs, transposed, [], Stored(tensor, transposed));
    }

    /// <summary>Blocks where their codes are chosen here; otherwise the floats that the weights were, or F32 where they were none.</summary>
    private DType Stored(TensorView tensor, bool transposed)
    {
        if (blocks?.Invoke(tensor.Name) is { } type && QuantizedBlocks.Takes(type))
        {
            return transposed
                ? throw new EngineException(
                    "the matrix is stored transposed: codes of GGUF cannot be chosen for it; make a GGUF of F32 first, and compress that", checkpoint.Path, tensor.Name)
                : type;
        }
        return tensor.DType is DType.F16 or DType.BF16 ? tensor.DType : DType.F32;
    }
}
