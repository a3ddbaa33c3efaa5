using System.Globalization;
using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Transforms.Calibration;
using Engine.Transforms.Pruning;
using Engine.Transforms.Quantization;

namespace Engine.Compression;

/// <summary>How the weights that become zero are chosen.</summary>
public enum PruningCriterion
{
    /// <summary>The smallest: no text is needed.</summary>
    Magnitude,
    /// <summary>Size times the norm of what is multiplied with it (Sun et al. 2023).</summary>
    Wanda,
    /// <summary>By the error that is left when the other weights make up for them, which they do (Frantar and Alistarh 2023).</summary>
    SparseGpt,
}

/// <summary>How weights are rounded to codes.</summary>
public enum RoundingMethod
{
    /// <summary>To the nearest: no text is needed.</summary>
    Rtn,
    /// <summary>One after the other, those that follow making up for the error (Frantar et al. 2022).</summary>
    Gptq,
}

/// <summary>What is done to a model: what is left out of it, then what becomes of the linear maps of its layers. Embedding, head, routers, norms and biases stay as they are.</summary>
public sealed record CompressionOptions
{
    /// <summary>Which weights become zero, or null.</summary>
    public SparsityPattern? Prune { get; init; }

    /// <summary>How they are chosen.</summary>
    public PruningCriterion Criterion { get; init; }

    /// <summary>The integers that weights are stored as in a Hugging Face folder, or null for the type they have.</summary>
    public IntegerFormat? Quantize { get; init; }

    /// <summary>How weights are rounded, to integers of a folder or to blocks of a GGUF.</summary>
    public RoundingMethod Method { get; init; }

    /// <summary>
    /// GPTQ rounds the inputs of largest activations first, whose errors the most others then make up for. Groups stay neighbours, fitted to the weights as they were
    /// (compressed-tensors' actorder "weight"), so that readers see no difference. Null: wherever it can, which is not together with SparseGPT.
    /// </summary>
    public bool? ActOrder { get; init; }

    /// <summary>The formats of a GGUF file, which matrices are rounded to at the latest when it is written; null for a Hugging Face folder.</summary>
    public QuantizationRecipe? Gguf { get; init; }

    /// <summary>Layers to leave out, those whose input and output are most alike.</summary>
    public int DropLayers { get; init; }

    /// <summary>Layers to give the weights of a layer before them, those whose input and output are most alike among those that are left.</summary>
    public int ShareLayers { get; init; }

    /// <summary>Experts to leave out of every mixture, those that are sent least.</summary>
    public int DropExperts { get; init; }

    /// <summary>Experts to merge into others of their mixture, those that are sent least: <see cref="ExpertMerge"/>.</summary>
    public int MergeExperts { get; init; }

    /// <summary>
    /// Attention heads to leave out of every layer, those that contribute least: key-value heads with the query heads that share them; a number of them, or a part below 1;
    /// 0 for none.
    /// </summary>
    public double DropHeads { get; init; }

    /// <summary>The part of the inner neurons of every feed-forward to leave out, those that contribute least; 0 for none.</summary>
    public double Narrow { get; init; }

    /// <summary>
    /// Layers that one pass over the calibration text serves. Later layers see what earlier ones have become only from pass to pass, so 1 is best, and costs most.
    /// </summary>
    public int LayersPerPass { get; init; } = 1;

    /// <summary>λ of <see cref="InverseFactor"/>.</summary>
    public double Damping { get; init; } = InverseFactor.UsualDamping;

    /// <summary>Weights make up for each other, which takes the second moments of all inputs.</summary>
    public bool NeedsMoments => IsSparseGpt || Method == RoundingMethod.Gptq;

    /// <summary>Inputs are rounded in the order of their activations.</summary>
    public bool OrdersInputs => ActOrder ?? (Method == RoundingMethod.Gptq && !IsSparseGpt);

    /// <summary>Something is left out, which a calibration text chooses.</summary>
    public bool ChangesStructure => DropLayers > 0 || ShareLayers > 0 || DropExperts > 0 || MergeExperts > 0 || DropHeads > 0 || Narrow > 0;

    /// <summary>Matrices change, not just which there are.</summary>
    public bool ChangesWeights => Prune is not null || Quantize is not null || Method == RoundingMethod.Gptq;

    /// <summary>GPTQ can choose the codes of a recipe's formats: they have some, unlike floats.</summary>
    public static bool HasCodes(QuantizationRecipe recipe) => recipe.Name is not ("F32" or "F16" or "BF16");

    /// <summary>Matrices are compressed by a calibration text.</summary>
    public bool NeedsCalibration => NeedsMoments || (Prune is not null && Criterion == PruningCriterion.Wanda);

    /// <summary>Checks that the options go together.</summary>
    /// <exception cref="EngineException">They do not; <see cref="EngineException.Item"/> names the property.</exception>
    public void Validate()
    {
        Require(DropLayers >= 0, nameof(DropLayers), $"expected at least 0, found {DropLayers}");
        Require(ShareLayers >= 0, nameof(ShareLayers), $"expected at least 0, found {ShareLayers}");
        Require(DropExperts >= 0, nameof(DropExperts), $"expected at least 0, found {DropExperts}");
        Require(MergeExperts >= 0, nameof(MergeExperts), $"expected at least 0, found {MergeExperts}");
        Require(
            MergeExperts == 0 || (DropExperts == 0 && Narrow == 0), nameof(MergeExperts), "experts are merged, or they and their neurons are left out, not both");
        Require(
            DropHeads is >= 0 and <= int.MaxValue && (DropHeads < 1 || double.IsInteger(DropHeads)), nameof(DropHeads),
            string.Create(CultureInfo.InvariantCulture, $"expected a number of heads or a part below 1, found {DropHeads}"));
        Require(
            Narrow is >= 0 and < 1, nameof(Narrow), string.Create(CultureInfo.InvariantCulture, $"expected a part below 1, found {Narrow}"));
        Require(
            ChangesWeights || ChangesStructure || Gguf is not null, nameof(Prune), "expected something to do: neither pruning nor a format is asked for");
        Require(Quantize is null || Gguf is null, nameof(Quantize), "expected integers for a folder or a format of GGUF, found both");
        Require(Enum.IsDefined(Criterion), nameof(Criterion), $"expected a criterion, found {Criterion}");
        Require(Enum.IsDefined(Method), nameof(Method), $"expected a method, found {Method}");
        Require(Prune is not null || Criterion == PruningCriterion.Magnitude, nameof(Criterion), "chooses what is pruned, and nothing is");
        Require(
            Method == RoundingMethod.Rtn || Quantize is not null || Gguf is not null, nameof(Method), "is for weights that are stored as codes, and no format is asked for");
        Require(
            Method == RoundingMethod.Rtn || Gguf is null || HasCodes(Gguf), nameof(Method),
            $"{Gguf?.Name} has no codes to choose; GPTQ makes int4 and int8, and of GGUF {string.Join(", ", QuantizationRecipe.All.Where(HasCodes).Select(static recipe => recipe.Name))}");
        Require(ActOrder is null || Method == RoundingMethod.Gptq, nameof(ActOrder), "is the order of GPTQ, which is not asked for");
        Require(
            !OrdersInputs || !IsSparseGpt, nameof(ActOrder),
            "SparseGPT chooses among neighbours, in the order they have: weights are chosen by another criterion, or inputs keep their order");
        Require(
            Prune is null || Gguf is null || HasZero(Gguf), nameof(Quantize), $"{Gguf?.Name} has no exact zero: what is pruned would not stay so");
        Require(LayersPerPass >= 1, nameof(LayersPerPass), $"expected at least 1, found {LayersPerPass}");
        Require(
            Damping is > 0 and <= 1, nameof(Damping), string.Create(CultureInfo.InvariantCulture, $"expected a number above 0 and at most 1, found {Damping}"));
    }

    private bool IsSparseGpt => Prune is not null && Criterion == PruningCriterion.SparseGpt;

    /// <summary>All that the result depends on, but for model and text.</summary>
    public override string ToString()
    {
        List<string> parts = [];
        Add(DropLayers > 0, $"without {DropLayers} layers");
        Add(ShareLayers > 0, $"{ShareLayers} layers with the weights of others");
        Add(DropExperts > 0, $"without {DropExperts} experts");
        Add(MergeExperts > 0, $"{MergeExperts} experts merged into others");
        Add(DropHeads > 0, string.Create(CultureInfo.InvariantCulture, $"without {DropHeads:R} of the heads"));
        Add(Narrow > 0, string.Create(CultureInfo.InvariantCulture, $"without {Narrow:R} of the neurons"));
        Add(Prune is not null, $"{Prune} by {Criterion}");
        Add(Quantize is not null, $"{Quantize} by {Method}");
        Add(Gguf is not null, Method == RoundingMethod.Gptq ? $"{Gguf?.Name} by {Method}" : Gguf?.Name ?? "");
        Add(OrdersInputs, "largest activations first");
        Add(NeedsCalibration, string.Create(CultureInfo.InvariantCulture, $"{LayersPerPass} layers per pass, damping {Damping:R}"));
        return string.Join(", ", parts).ToLowerInvariant();

        void Add(bool holds, string part)
        {
            if (holds)
            {
                parts.Add(part);
            }
        }
    }

    /// <summary>Formats whose blocks have a least value besides the scale cannot be told to hold 0.</summary>
    private static bool HasZero(QuantizationRecipe recipe) => recipe.Name is "F32" or "F16" or "BF16" or "Q4_0" or "Q5_0" or "Q8_0" or "Q6_K";

    private static void Require(bool holds, string option, string reason)
    {
        if (!holds)
        {
            throw new EngineException(reason, item: option);
        }
    }
}
