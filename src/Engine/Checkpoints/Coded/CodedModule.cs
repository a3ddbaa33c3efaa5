using System.Diagnostics.CodeAnalysis;

namespace Engine.Checkpoints.Coded;

/// <summary>A module of a quantized checkpoint, as <c>model.layers.0.mlp.up_proj</c>: finds its tensors and checks them.</summary>
/// <param name="Source">The file's own tensors.</param>
/// <param name="Name">The module's name.</param>
internal sealed record CodedModule(Checkpoint Source, string Name)
{
    /// <summary>What the weight is called.</summary>
    public string WeightName => Name + ".weight";

    /// <summary>The most outputs and inputs that are believed.</summary>
    private const int MostElements = 1 << 28;

    /// <summary>The full name of one of the module's tensors.</summary>
    public string NameOf(string suffix) => $"{Name}.{suffix}";

    /// <summary>The module has such a tensor.</summary>
    public bool Has(string suffix) => Source.TryGetTensor(NameOf(suffix), out _);

    /// <summary>The module has one of these tensors.</summary>
    public bool HasAny(params ReadOnlySpan<string> suffixes)
    {
        foreach (string suffix in suffixes)
        {
            if (Has(suffix))
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>One of its tensors, or null.</summary>
    public TensorView? Find(string suffix) => Source.TryGetTensor(NameOf(suffix), out TensorView? tensor) ? tensor : null;

    /// <summary>One of its tensors.</summary>
    /// <exception cref="EngineException">There is none, or its type is not one of these.</exception>
    public TensorView Get(string suffix, params ReadOnlySpan<DType> types)
    {
        TensorView tensor = Find(suffix) ?? throw new EngineException("the tensor is missing; the module is quantized", Source.Path, NameOf(suffix));
        return types.Contains(tensor.DType)
            ? tensor
            : throw Error(suffix, $"expected {string.Join(" or ", types.ToArray())}; found {tensor.DType}");
    }

    /// <summary>One of its tensors, of a shape.</summary>
    /// <exception cref="EngineException">There is none, or it has another type or shape.</exception>
    public TensorView Get(string suffix, long[] shape, params ReadOnlySpan<DType> types)
    {
        TensorView tensor = Get(suffix, types);
        RequireShape(suffix, tensor, shape);
        return tensor;
    }

    /// <summary>Scales in one of the float types.</summary>
    /// <exception cref="EngineException">There are none, or they have another type or none of the shapes.</exception>
    public TensorView GetFloats(string suffix, params ReadOnlySpan<long[]> shapes)
    {
        TensorView tensor = Get(suffix, DType.F32, DType.F16, DType.BF16);
        foreach (long[] shape in shapes)
        {
            if (tensor.Shape.AsSpan().SequenceEqual(shape))
            {
                return tensor;
            }
        }
        throw Error(suffix, $"expected the shape {string.Join(" or ", shapes.ToArray().Select(static shape => $"[{string.Join(", ", shape)}]"))}; found {tensor.DescribeShape()}");
    }

    /// <summary>Refuses another shape.</summary>
    /// <exception cref="EngineException">It is another.</exception>
    public void RequireShape(string suffix, TensorView tensor, params ReadOnlySpan<long> shape)
    {
        if (!tensor.Shape.AsSpan().SequenceEqual(shape))
        {
            throw Error(suffix, $"expected the shape [{string.Join(", ", shape.ToArray())}]; found {tensor.DescribeShape()}");
        }
    }

    /// <summary>Refuses sizes that cannot be a matrix.</summary>
    /// <exception cref="EngineException">They cannot.</exception>
    public (long Rows, int Columns) RequireSize(string suffix, long rows, long columns)
    {
        if (rows is < 1 or > MostElements || columns is < 1 or > MostElements)
        {
            throw Error(suffix, $"expected a matrix of up to {MostElements} outputs and inputs; found [{rows}, {columns}]");
        }
        return (rows, (int)columns);
    }

    /// <summary>The size of a tensor that is a matrix.</summary>
    /// <exception cref="EngineException">It is none.</exception>
    public (long Rows, int Columns) RequireMatrix(string suffix, TensorView tensor) => tensor.Shape.Length == 2
        ? RequireSize(suffix, tensor.Shape[0], tensor.Shape[1])
        : throw Error(suffix, $"expected a matrix; found {tensor.DescribeShape()}");

    /// <summary>A complaint about one of the tensors.</summary>
    public EngineException Error(string suffix, string reason) => new(reason, Source.Path, NameOf(suffix));

    /// <summary>A complaint about a key of the quantization's configuration.</summary>
    [DoesNotReturn]
    public void Refuse(string reason) => throw new EngineException(reason, Source.Path, Name);

    /// <summary>
    /// Groups that places are in, as GPTQ and compressed-tensors store them, turned into an order of columns by group. Where groups are not equal runs of
    /// <paramref name="groupColumns"/>, every place is a group by itself.
    /// </summary>
    /// <param name="suffix">The tensor: I32 [columns], of which each entry is a group.</param>
    /// <param name="columns">Columns.</param>
    /// <param name="groups">Groups there are scales for.</param>
    /// <param name="groupColumns">Columns of a group.</param>
    /// <exception cref="EngineException">It has another shape or names a group that there is not.</exception>
    public ColumnGroups ReadGroups(string suffix, int columns, int groups, int groupColumns)
    {
        TensorView tensor = Get(suffix, [columns], DType.I32, DType.I64);
        var of = new int[columns];
        for (int column = 0; column < columns; column++)
        {
            long group = tensor.Integer(column);
            if (group < 0 || group >= groups)
            {
                throw Error(suffix, $"expected groups from 0 to {groups - 1}; found {group} at column {column}");
            }
            of[column] = (int)group;
        }
        return ColumnGroups.Of(of, groupColumns);
    }
}
