using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;

namespace Engine.Checkpoints;

/// <summary>
/// A read-only dictionary from tensor name to <see cref="TensorView"/>, with the model's configuration and the files a tokenizer needs.
/// GGUF, safetensors and in-memory tensors are implementations; a transform is a decorator. All validation of hostile input happens on opening.
/// </summary>
public abstract class Checkpoint : IDisposable
{
    /// <summary>The file or folder this was opened from, for messages.</summary>
    public abstract string Path { get; }

    /// <summary>Tensor names in file order.</summary>
    public abstract IReadOnlyCollection<string> TensorNames { get; }

    /// <summary>Finds a tensor by name.</summary>
    public abstract bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor);

    /// <summary>
    /// Finds out what a tensor is, without its bytes, which may not be looked at: what a transform makes when it is asked for is not made for this.
    /// </summary>
    public virtual bool TryGetOutline(string name, [NotNullWhen(true)] out TensorView? outline) => TryGetTensor(name, out outline);

    /// <summary>
    /// The model's configuration in the vocabulary of Hugging Face's <c>config.json</c> (<c>model_type</c>, <c>hidden_size</c>, …).
    /// </summary>
    public abstract JsonObject Config { get; }

    /// <summary>GGUF key/value metadata as CLR values (numbers, bool, string, arrays of those); empty for other formats.</summary>
    public virtual IReadOnlyDictionary<string, object> Metadata => System.Collections.Frozen.FrozenDictionary<string, object>.Empty;

    /// <summary>Reads a file that lies beside the weights (<c>tokenizer.json</c>, …), or null where there is none.</summary>
    public virtual byte[]? ReadAsset(string fileName) => null;

    /// <summary>The files that <see cref="ReadAsset"/> finds, in ordinal order; empty where the format has none beside it.</summary>
    public virtual IReadOnlyList<string> AssetNames => [];

    /// <summary>Finds a tensor by name.</summary>
    /// <exception cref="EngineException">There is no such tensor.</exception>
    public TensorView this[string name] =>
        TryGetTensor(name, out TensorView? tensor) ? tensor : throw new EngineException("the tensor is missing", Path, name);

    /// <summary>What a tensor is, without its bytes: see <see cref="TryGetOutline"/>.</summary>
    /// <exception cref="EngineException">There is no such tensor.</exception>
    public TensorView Outline(string name) =>
        TryGetOutline(name, out TensorView? tensor) ? tensor : throw new EngineException("the tensor is missing", Path, name);

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases the mapping or buffers; views into them become invalid.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }
}
