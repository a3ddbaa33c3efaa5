using Engine;
using Engine.Plans;
using Host.CommandLine;
using Host.Measuring;

namespace Host.Commands;

/// <summary>Models that are loaded together and measured in turns, so that what the machine does meanwhile happens to all of them.</summary>
internal sealed record ModelComparison
{
    /// <summary>The models; the first is the one that the others are compared with.</summary>
    public required IReadOnlyList<string> Paths { get; init; }

    /// <summary>How they are loaded.</summary>
    public required LanguageModelOptions Options { get; init; }

    /// <summary>Refuses a model that options do not fit.</summary>
    public Action<ModelPlan, string>? Require { get; init; }

    /// <summary>Bytes of keys and values, for all or for each; null for no bound.</summary>
    public IReadOnlyList<int>? KvBytes { get; init; }

    /// <summary>Rounds that count; each measures every model once.</summary>
    public required int Repetitions { get; init; }

    /// <summary>Prints one JSON object.</summary>
    public required bool Json { get; init; }

    /// <summary>Loads the models.</summary>
    /// <param name="kvTokens">Tokens of keys and values, where bytes are not given.</param>
    /// <param name="cancellationToken">Ends the loading; nothing stays open.</param>
    public LoadedModels Load(long? kvTokens, CancellationToken cancellationToken)
    {
        LoadedModels models = new();
        try
        {
            for (int i = 0; i < Paths.Count; i++)
            {
                LanguageModelOptions options = Options with
                {
                    KvBytes = KvBytes is null ? null : KvBytes[Math.Min(i, KvBytes.Count - 1)],
                    KvTokens = KvBytes is null ? kvTokens : null,
                };
                models.Add(LoadedModel.Load(Paths[i], options, cancellationToken, Require));
            }
            return models;
        }
        catch
        {
            models.Dispose();
            throw;
        }
    }

    /// <summary>Measures every model in every round.</summary>
    /// <param name="models">The models.</param>
    /// <param name="warmUp">A first round is not counted.</param>
    /// <param name="measure">Measures one in a round, counted from 0; −1 is the one that is not counted.</param>
    /// <returns>By model, then by round.</returns>
    public async Task<T[][]> RunAsync<T>(LoadedModels models, bool warmUp, Func<LanguageModel, int, Task<T>> measure)
    {
        T[][] results = [.. models.Select(_ => new T[Repetitions])];
        for (int round = warmUp ? -1 : 0; round < Repetitions; round++)
        {
            for (int i = 0; i < models.Count; i++)
            {
                T result = await measure(models[i].Model, round).ConfigureAwait(false);
                if (round >= 0)
                {
                    results[i][round] = result;
                }
            }
        }
        return results;
    }

    /// <summary>Median over the rounds of a quantity relative to the first model's in the same round.</summary>
    public static Spread Ratio<T>(T[] of, T[] first, Func<T, double> quantity) =>
        Spread.Of(of.Zip(first, (a, b) => quantity(a) / quantity(b)));
}

/// <summary>Models that are disposed together.</summary>
internal sealed class LoadedModels : List<LoadedModel>, IDisposable
{
    public void Dispose()
    {
        foreach (LoadedModel model in this)
        {
            model.Dispose();
        }
        Clear();
    }
}
