using System.Runtime.CompilerServices;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Cpu;
using Engine.Execution;
using Engine.Generation;
using Engine.Plans;
using Engine.Sampling;
using Engine.Text;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;

namespace Engine;

/// <summary>
/// The front door: a loaded model that any number of callers generate with at the same time.
/// <code>
/// using LanguageModel model = LanguageModel.Load("model.gguf");
/// await foreach (GeneratedToken token in model.GenerateAsync(new() { Prompt = "Once upon a time", MaxTokens = 100 }))
/// {
///     Console.Write(token.Text);
/// }
/// </code>
/// </summary>
public sealed class LanguageModel : IDisposable
{
    private readonly Checkpoint checkpoint;
    private readonly IBackend backend;
    private readonly Executor executor;
    private readonly KvCache cache;
    private readonly GenerationLoop loop;
    private readonly Tokenizer? tokenizer;
    private bool disposed;

    private LanguageModel(
        Checkpoint checkpoint, IBackend backend, Executor executor, KvCache cache, Tokenizer? tokenizer, int contextLength, long? expertBytesLimit)
    {
        ExpertBytesLimit = expertBytesLimit;
        this.checkpoint = checkpoint;
        this.backend = backend;
        this.executor = executor;
        this.cache = cache;
        this.tokenizer = tokenizer;
        ContextLength = contextLength;
        loop = new GenerationLoop(executor, cache, tokenizer);
    }

    /// <summary>What the model computes.</summary>
    public ModelPlan Plan => executor.Plan;

    /// <summary>The file or folder the model came from.</summary>
    public string Path => checkpoint.Path;

    /// <summary>The longest sequence in tokens.</summary>
    public int ContextLength { get; }

    /// <summary>Device, instruction set, threads and what is rounded, for people.</summary>
    public string BackendDescription => backend.Description;

    /// <summary>Bytes of weights that are packed now: where <see cref="ExpertBytesLimit"/> is set, experts come and go.</summary>
    public long WeightBytes => executor.WeightBytes;

    /// <summary>
    /// What packed experts may take: <see cref="LanguageModelOptions.ExpertBytes"/>, or what memory leaves for them where they do not all fit; null where all
    /// are kept.
    /// </summary>
    public long? ExpertBytesLimit { get; }

    /// <summary>Neurons of feed-forwards and experts that contribute nothing and were left out (<see cref="CompactedCheckpoint"/>).</summary>
    public long RemovedNeurons { get; private init; }

    /// <summary>Told, within steps, what routers of experts choose for all generations and sessions; null costs nothing.</summary>
    public IExpertObserver? ExpertObserver
    {
        get => executor.ExpertObserver;
        set => BetweenSteps(() => executor.ExpertObserver = value);
    }

    /// <summary>Shown, within steps, what goes into the linear maps of layers, by all generations and sessions; null costs nothing.</summary>
    public ILinearObserver? LinearObserver
    {
        get => executor.LinearObserver;
        set => BetweenSteps(() => executor.LinearObserver = value);
    }

    /// <summary>Shown, within steps, what layers do to the residual stream, by all generations and sessions; null costs nothing.</summary>
    public ILayerObserver? LayerObserver
    {
        get => executor.LayerObserver;
        set => BetweenSteps(() => executor.LayerObserver = value);
    }

    /// <summary>Bytes reserved for keys and values; memory is taken as they are used.</summary>
    public long KvBytes => cache.Storage.Bytes;

    /// <summary>Bytes that the keys and values of one token take in one KV slot (of one stream, where there are several).</summary>
    public long KvSlotBytesPerToken => cache.Storage.Bytes / ((long)cache.PageCount * cache.PageTokens);

    /// <summary>What has been computed so far, by all generations and sessions. May be read while they run.</summary>
    public WorkDone Work => executor.Work;

    /// <summary>The model's tokenizer.</summary>
    /// <exception cref="EngineException">The checkpoint has none.</exception>
    public Tokenizer Tokenizer =>
        tokenizer ?? throw new EngineException("the model has no tokenizer: give token ids instead of text", Path);

    /// <summary>True where the checkpoint has a tokenizer.</summary>
    public bool HasTokenizer => tokenizer is not null;

    /// <summary>How often a sequence had to give its pages back and start again.</summary>
    internal int Preemptions => loop.Preemptions;

    /// <summary>Opens a checkpoint and packs it for the CPU.</summary>
    /// <param name="path">A GGUF file, a Hugging Face folder, a .safetensors file in such a folder, or a llama2.c .bin file.</param>
    /// <param name="options">How to load, or null for the defaults.</param>
    /// <param name="cancellationToken">Ends the loading at the next block; nothing stays open.</param>
    /// <exception cref="EngineException">The checkpoint is malformed or not supported, or an option is out of range. Nothing stays open.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static LanguageModel Load(string path, LanguageModelOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return Load(CheckpointFile.Open(path), options, cancellationToken);
    }

    /// <summary>Packs a checkpoint for the CPU; the model owns the checkpoint from here on, and disposes it also when loading fails.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="options">How to load, or null for the defaults.</param>
    /// <param name="cancellationToken">Ends the loading at the next block; nothing stays open.</param>
    /// <exception cref="EngineException">The checkpoint is not supported, or an option is out of range.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static LanguageModel Load(
        Checkpoint checkpoint, LanguageModelOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(checkpoint);
        options ??= new LanguageModelOptions();
        Stack<IDisposable> opened = new([checkpoint]);
        try
        {
            options.Validate();
            QuantizationRecipe? recipe = options.Quantize is null ? null : QuantizationRecipe.Named(options.Quantize);
            Checkpoint compacted = options.KeepsIdleNeurons ? checkpoint : CompactedCheckpoint.Apply(checkpoint, recipe);
            ModelPlan plan = LongContext.Apply(ModelPlanReader.Read(compacted), options.ContextLength);
            plan = options.Layers is null ? plan : LayerOrder.Apply(plan, options.Layers);
            int contextLength = ContextLengthOf(plan, options, checkpoint);
            if (options.ExpertsPerToken is { } perToken)
            {
                Mixtures.RequirePerToken(plan, perToken, checkpoint.Path, nameof(options.ExpertsPerToken));
            }
            // The plan is that of the weights as they are stored: what is equal there is equal when quantized, and need not be encoded to know.
            Checkpoint weights = recipe is null ? compacted : new QuantizedCheckpoint(compacted, recipe);
            Tokenizer? tokenizer = Tokenizer.TryLoad(checkpoint);
            // Reading metadata and vocabulary leaves as much garbage as it keeps; without this it would count into the peak beside the weights.
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            long? expertBytes = options.ExpertBytes ?? ExpertBound(plan, compacted, weights as QuantizedCheckpoint);
            IBackend backend = new CpuBackend(
                new CpuOptions { Threads = options.Threads, ActivationPrecision = options.ActivationPrecision, ExpertBytes = expertBytes });
            opened.Push(backend);
            cancellationToken.ThrowIfCancellationRequested();
            CancellableProgress progress = new(options.Progress, cancellationToken);
            Executor executor = Executor.Load(
                plan, weights, backend, RowsPerStep(plan, options, contextLength), progress, options.DepthSelection, options.ExpertsPerToken);
            opened.Push(executor);
            KvCache cache = new(backend, plan.Layers.KvSlots, options.KvFormat, PageCount(plan, options, contextLength, backend), options.PageTokens);
            opened.Push(cache);
            return new LanguageModel(weights, backend, executor, cache, tokenizer, contextLength, expertBytes)
            {
                RemovedNeurons = (compacted as CompactedCheckpoint)?.RemovedNeurons ?? 0,
            };
        }
        catch
        {
            while (opened.TryPop(out IDisposable? resource))
            {
                resource.Dispose();
            }
            throw;
        }
    }

    /// <summary>Generates token by token. Several generations may run at once; they share every step of the model.</summary>
    /// <param name="request">What to generate.</param>
    /// <param name="cancellationToken">Ends the generation and frees its memory.</param>
    /// <exception cref="EngineException">The request does not fit the model: no prompt, an id outside the vocabulary, a prompt longer than the context.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public IAsyncEnumerable<GeneratedToken> GenerateAsync(GenerationRequest request, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        ObjectDisposedException.ThrowIf(disposed, this);
        ArgumentNullException.ThrowIfNull(request.Sampling);
        ArgumentNullException.ThrowIfNull(request.Stop);
        request.Sampling.Validate(Plan.VocabularySize);
        StopStrings.Check(request.Stop);
        int[] prompt = PromptIds(request);
        int room = ContextLength - prompt.Length;
        if (room < 1)
        {
            throw new EngineException(
                $"the prompt has {prompt.Length} tokens, and the context of {ContextLength} must also hold what is generated", item: "prompt");
        }
        if (request.MaxTokens is < 1)
        {
            throw new EngineException($"expected at least 1, found {request.MaxTokens}", item: nameof(request.MaxTokens));
        }
        return Stream(prompt, Math.Min(request.MaxTokens ?? room, room), request, StreamSet(request.Streams), cancellationToken);
    }

    /// <summary>Feeds tokens and reads logits, past sampling: for parity work, perplexity and scoring.</summary>
    /// <param name="streams">Parallel streams, as in <see cref="GenerationRequest.Streams"/>.</param>
    /// <exception cref="EngineException">There is no set of so many streams.</exception>
    public LogitsSession CreateLogitsSession(int? streams = null)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        return new LogitsSession(executor, cache, loop, ContextLength, StreamSet(streams));
    }

    /// <summary>Ends all generations and frees the model.</summary>
    public void Dispose()
    {
        if (!disposed)
        {
            disposed = true;
            loop.Dispose();
            // A logits session on another thread may still be inside a step.
            lock (loop.ExecutorGate)
            {
                cache.Dispose();
                executor.Dispose();
                backend.Dispose();
                checkpoint.Dispose();
            }
        }
    }

    private void BetweenSteps(Action change)
    {
        lock (loop.ExecutorGate)
        {
            change();
        }
    }

    private async IAsyncEnumerable<GeneratedToken> Stream(
        int[] prompt, int maxTokens, GenerationRequest request, int streamSet, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        ActiveGeneration generation = loop.Submit(prompt, maxTokens, request, streamSet);
        try
        {
            using CancellationTokenRegistration registration = cancellationToken.UnsafeRegister(
                static (state, token) => ((ActiveGeneration)state!).Stream.Complete(new OperationCanceledException(token)), generation);
            while (await generation.Stream.WaitAsync().ConfigureAwait(false))
            {
                while (generation.Stream.TryRead(out GeneratedToken token))
                {
                    cancellationToken.ThrowIfCancellationRequested();
                    yield return token;
                }
            }
        }
        finally
        {
            // Also where the reader stops early: the loop must not go on for nobody.
            loop.Cancel(generation);
        }
    }

    private int[] PromptIds(GenerationRequest request)
    {
        int[] ids = request switch
        {
            { Prompt: not null, PromptIds: not null } => throw new EngineException("give a prompt or ids, not both", item: "prompt"),
            { Prompt: { } text } => Tokenizer.Encode(text),
            { PromptIds: { } given } => [.. given],
            _ => throw new EngineException("the request has neither a prompt nor ids", item: "prompt"),
        };
        if (ids.Length == 0)
        {
            throw new EngineException("the prompt has no tokens, and the model has no beginning-of-sequence token to start from", item: "prompt");
        }
        CheckIds(ids, Plan.VocabularySize);
        return ids;
    }

    /// <summary>The set with so many streams; the first where none is asked for.</summary>
    private int StreamSet(int? streams)
    {
        if (streams is null)
        {
            return 0;
        }
        int[] counts = [.. Plan.Streams?.Sets.Select(static set => set.Count) ?? [1]];
        int set = Array.IndexOf(counts, streams.Value);
        return set >= 0 ? set : throw new EngineException($"expected one of {string.Join(", ", counts)}, found {streams}", Path, "streams");
    }

    internal static void CheckIds(ReadOnlySpan<int> ids, int vocabularySize)
    {
        foreach (int id in ids)
        {
            if ((uint)id >= (uint)vocabularySize)
            {
                throw new EngineException($"expected a token id from 0 to {vocabularySize - 1}, found {id}", item: "ids");
            }
        }
    }

    private static int ContextLengthOf(ModelPlan plan, LanguageModelOptions options, Checkpoint checkpoint)
    {
        int context = options.ContextLength ?? plan.ContextLength;
        return context <= plan.ContextLength
            ? context
            : throw new EngineException(
                $"expected at most {plan.LongContextLength ?? plan.ContextLength}, which the model was made for, found {context}", checkpoint.Path, "context length");
    }

    /// <summary>A step must hold the streams of a token; with the official routing, a whole prompt.</summary>
    private static int RowsPerStep(ModelPlan plan, LanguageModelOptions options, int contextLength) =>
        plan.Layers.Recursion?.Router is not null && options.DepthSelection == DepthSelection.Official
            ? contextLength
            : Math.Max(Math.Min(options.MaxRowsPerStep, contextLength), LargestStreams(plan));

    private static int LargestStreams(ModelPlan plan) => plan.Streams?.Sets.Max(static set => set.Count) ?? 1;

    private static int PageCount(ModelPlan plan, LanguageModelOptions options, int contextLength, IBackend backend)
    {
        int slots = plan.Layers.KvSlots.Length * LargestStreams(plan);
        long pages;
        if (options.KvBytes is { } bytes)
        {
            using KvStorage page = backend.AllocateKv(plan.Layers.KvSlots, options.KvFormat, 1, options.PageTokens);
            pages = bytes / page.Bytes;
            if (pages < slots)
            {
                throw new EngineException($"expected at least {slots * page.Bytes}, a page for every layer, found {bytes}", item: nameof(options.KvBytes));
            }
        }
        else
        {
            long pagesPerSlot = ((options.KvTokens ?? DefaultKvTokens(plan, contextLength)) + options.PageTokens - 1) / options.PageTokens;
            pages = Math.Max(1, pagesPerSlot) * slots;
        }
        return pages <= int.MaxValue ? (int)pages : throw new EngineException($"{pages} pages are more than can be numbered", item: "KV cache");
    }

    private static long? ExpertBound(ModelPlan plan, Checkpoint checkpoint, QuantizedCheckpoint? quantized)
    {
        if (!plan.Experts().Any())
        {
            return null;
        }
        WeightBytes sizes = new(checkpoint, quantized is null ? null : tensor => quantized.TypeOf(tensor.Name));
        (long experts, long others) = sizes.Totals(plan);
        return ExpertMemoryBound.For(experts, others, GC.GetGCMemoryInfo().TotalAvailableMemoryBytes);
    }

    private static long DefaultKvTokens(ModelPlan plan, int contextLength)
    {
        long elementsPerToken = plan.Layers.KvSlots.Max(static slot => slot.ElementsPerToken) * plan.Layers.KvSlots.Length * LargestStreams(plan);
        long affordable = GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / 4 / (elementsPerToken * sizeof(float));
        return Math.Clamp(affordable, Math.Min(contextLength, 4096), 4L * contextLength);
    }

    /// <summary>Passes reports on, and ends the loading that makes them once it is cancelled.</summary>
    private sealed class CancellableProgress(IProgress<LoadProgress>? inner, CancellationToken cancellationToken) : IProgress<LoadProgress>
    {
        public void Report(LoadProgress value)
        {
            cancellationToken.ThrowIfCancellationRequested();
            inner?.Report(value);
        }
    }
}
