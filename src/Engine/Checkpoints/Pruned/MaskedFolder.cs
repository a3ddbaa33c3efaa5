using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;
using Engine.Checkpoints.Safetensors;

namespace Engine.Checkpoints.Pruned;

/// <summary>
/// A dense model with the masks of another file (Fang et al. 2024, MaskLLM): of a tensor <c>x.weight</c> the array <c>x.weight.mask</c> of a .npz has a bit per element,
/// in the order of the elements and the first in the highest bit (<c>numpy.packbits</c>); 0 makes an element zero. That is done when a tensor is asked for.
/// </summary>
internal sealed class MaskedFolder : Checkpoint
{
    /// <summary>The file beside the weights that is taken without being named: MaskLLM's scripts look for this name on the hub.</summary>
    public const string FileName = "mask_compressed.npz";

    private const string Suffix = ".mask";

    private readonly Checkpoint source;
    private readonly NpzFile masks;
    private readonly TensorsOnDemand made;

    private MaskedFolder(Checkpoint source, NpzFile masks)
    {
        this.source = source;
        this.masks = masks;
        made = new TensorsOnDemand(source.Path);
    }

    /// <inheritdoc/>
    public override string Path => source.Path;

    /// <inheritdoc/>
    public override IReadOnlyCollection<string> TensorNames => source.TensorNames;

    /// <inheritdoc/>
    public override JsonObject Config => source.Config;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, object> Metadata => source.Metadata;

    /// <summary>The files of the source but the masks, which are in the weights here.</summary>
    public override IReadOnlyList<string> AssetNames => [.. source.AssetNames.Where(static name => name != FileName)];

    /// <summary>The masks that lie in a folder under the usual name, or null.</summary>
    /// <exception cref="EngineException">They are a link that leads out of it.</exception>
    public static string? Beside(string folder)
    {
        string path = System.IO.Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            return null;
        }
        FileNames.RequireInside(folder, path);
        return path;
    }

    /// <summary>Puts masks over a model; owns it from here on, but not where this fails.</summary>
    /// <param name="source">The model, in floats.</param>
    /// <param name="path">The masks.</param>
    /// <exception cref="EngineException">The file is malformed, or a mask fits no tensor.</exception>
    public static MaskedFolder Open(Checkpoint source, string path)
    {
        NpzFile masks = NpzFile.Open(path);
        try
        {
            foreach (string name in masks.Names)
            {
                Require(source, masks, name);
            }
            return new MaskedFolder(source, masks);
        }
        catch
        {
            masks.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override byte[]? ReadAsset(string fileName) => fileName == FileName ? null : source.ReadAsset(fileName);

    /// <inheritdoc/>
    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor)
    {
        if (!source.TryGetTensor(name, out tensor))
        {
            return false;
        }
        if (masks.Names.Contains(name + Suffix))
        {
            TensorView dense = tensor;
            tensor = made.Get(name, dense.DType, dense.Shape, buffer => Fill(dense, buffer));
        }
        return true;
    }

    /// <inheritdoc/>
    public override bool TryGetOutline(string name, [NotNullWhen(true)] out TensorView? outline) => source.TryGetOutline(name, out outline);

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            masks.Dispose();
            source.Dispose();
        }
        base.Dispose(disposing);
    }

    private static void Require(Checkpoint source, NpzFile masks, string name)
    {
        if (!name.EndsWith(Suffix, StringComparison.Ordinal))
        {
            throw new EngineException($"expected the name of a tensor and {Suffix}", masks.Path, name);
        }
        string tensorName = name[..^Suffix.Length];
        if (!source.TryGetOutline(tensorName, out TensorView? tensor))
        {
            throw new EngineException($"the model has no tensor {tensorName}", masks.Path, name);
        }
        if (tensor.Coded is not null || tensor.DType is not (DType.F32 or DType.F16 or DType.BF16))
        {
            throw new EngineException($"expected a mask of floats; {tensorName} is {tensor.DType}", masks.Path, name);
        }
        if (masks.Length(name) != (tensor.ElementCount + 7) / 8 || masks.Length(name) > Array.MaxLength)
        {
            throw new EngineException(
                $"expected {(tensor.ElementCount + 7) / 8} bytes for {tensor.DescribeShape()}; found {masks.Length(name)}", masks.Path, name);
        }
    }

    /// <summary>Copies a tensor without the elements whose bit is 0: those become +0.</summary>
    private unsafe void Fill(TensorView dense, UnmanagedBuffer buffer)
    {
        string name = dense.Name + Suffix;
        byte[] bits = new byte[masks.Length(name)];
        masks.Read(name, bits);
        int spare = (int)(bits.Length * 8L - dense.ElementCount);
        if (spare > 0 && (bits[^1] & ((1 << spare) - 1)) != 0)
        {
            throw new EngineException("bits behind the last element are not 0", masks.Path, name);
        }
        if (dense.DType == DType.F32)
        {
            Copy((uint*)dense.Address, (uint*)buffer.Address, dense.ElementCount, bits);
        }
        else
        {
            Copy((ushort*)dense.Address, (ushort*)buffer.Address, dense.ElementCount, bits);
        }
        dense.Evict();
    }

    private static unsafe void Copy<T>(T* from, T* to, long count, byte[] bits)
        where T : unmanaged
    {
        for (long i = 0; i < count; i++)
        {
            to[i] = (bits[i >> 3] >> (int)(7 - (i & 7)) & 1) == 0 ? default : from[i];
        }
    }
}
