using System.Runtime.InteropServices;
using System.Text.Json;
using Tools.StoryGrammar;

namespace Tools.Trainer;

/// <summary>What decides a run: the same values give the same weights, up to the last digits of the platform's exp, cos and pow.</summary>
/// <param name="Shape">The model.</param>
/// <param name="Seed">Of the initial weights and the stories.</param>
/// <param name="Steps">Optimizer steps, the length of the learning-rate schedule.</param>
/// <param name="Sequences">Sequences per step.</param>
/// <param name="Length">Tokens per sequence.</param>
/// <param name="LearningRate">The highest learning rate.</param>
/// <param name="TokenizerStories">Stories the tokenizer was learned from.</param>
public sealed record TrainingPlan(
    LlamaShape Shape, ulong Seed, int Steps, int Sequences, int Length, float LearningRate, int TokenizerStories);

/// <summary>
/// A run on disk: <c>plan.json</c>, <c>merges.json</c>, <c>state.bin</c> and <c>loss.csv</c> in one folder. Training goes on where it
/// stopped.
/// </summary>
public sealed unsafe class TrainingRun : IDisposable
{
    private const int WarmupSteps = 60;
    private const ulong ValidationSeed = 1UL << 60;
    private static readonly JsonSerializerOptions indented = new() { WriteIndented = true, IncludeFields = true };

    private readonly string folder;
    private readonly AdamW optimizer;
    private ulong nextStory;

    private TrainingRun(string folder, TrainingPlan plan, BytePairEncoding tokenizer)
    {
        (this.folder, Plan, Tokenizer) = (folder, plan, tokenizer);
        Parameters = new LlamaParameters(plan.Shape);
        optimizer = new AdamW(Parameters);
        Parameters.Initialise(new Dice(plan.Seed));
        nextStory = plan.Seed << 32;
    }

    /// <summary>What decides the run.</summary>
    public TrainingPlan Plan { get; }

    /// <summary>The tokenizer learned at its start.</summary>
    public BytePairEncoding Tokenizer { get; }

    /// <summary>The weights.</summary>
    public LlamaParameters Parameters { get; }

    /// <summary>Steps taken.</summary>
    public int Step { get; private set; }

    /// <summary>Starts a run in an empty folder: learns the tokenizer and writes the plan.</summary>
    public static TrainingRun Start(string folder, TrainingPlan plan)
    {
        Directory.CreateDirectory(folder);
        IEnumerable<string> stories =
            Enumerable.Range(0, plan.TokenizerStories).Select(i => StoryGenerator.Write((plan.Seed << 32) + (ulong)i));
        var tokenizer = BytePairEncoding.Learn(stories, plan.Shape.Vocabulary);
        File.WriteAllText(Path.Combine(folder, "plan.json"), JsonSerializer.Serialize(plan, indented));
        File.WriteAllText(Path.Combine(folder, "merges.json"), JsonSerializer.Serialize(tokenizer.Merges, indented));
        return new TrainingRun(folder, plan, tokenizer);
    }

    /// <summary>Opens a run where it stopped.</summary>
    /// <param name="folder">Where it was started.</param>
    /// <param name="steps">A new length of its schedule, or null to keep the one it has.</param>
    public static TrainingRun Open(string folder, int? steps = null)
    {
        TrainingPlan plan = Read<TrainingPlan>("plan.json");
        plan = plan with { Steps = steps ?? plan.Steps };
        var run = new TrainingRun(folder, plan, new BytePairEncoding(Read<(string, string)[]>("merges.json")));
        run.LoadState();
        return run;

        T Read<T>(string name) => JsonSerializer.Deserialize<T>(File.ReadAllText(Path.Combine(folder, name)), indented)
            ?? throw new InvalidDataException($"{name} is empty.");
    }

    /// <summary>Trains to the end of the plan, or for <paramref name="limit"/> steps, logging and saving on the way.</summary>
    public void Train(int limit, TimeSpan saveEvery)
    {
        using var model = new LlamaModel(Parameters, Plan.Sequences * Plan.Length);
        ulong validationSeed = ValidationSeed;
        Batch validation = Batch.OfStories(Tokenizer, ref validationSeed, Plan.Sequences, Plan.Length);
        using StreamWriter log = File.AppendText(Path.Combine(folder, "loss.csv"));
        DateTime started = DateTime.UtcNow, saved = started;
        int firstStep = Step, lastStep = Step + Math.Min(limit, Plan.Steps - Step);
        double sum = 0;
        int summed = 0;
        while (Step < lastStep)
        {
            Batch batch = Batch.OfStories(Tokenizer, ref nextStory, Plan.Sequences, Plan.Length);
            double loss = model.Train(batch);
            if (!double.IsFinite(loss))
                throw new InvalidOperationException($"The loss of step {Step + 1} is {loss}: training diverged.");
            sum += loss;
            summed++;
            Step++;
            float norm = optimizer.Step(Step, LearningRate(Step));
            if (Step % 20 == 0 || Step == lastStep)
            {
                string validated = Step % 100 == 0 || Step == lastStep ? model.Evaluate(validation).ToString("F4") : "";
                double seconds = (DateTime.UtcNow - started).TotalSeconds;
                double speed = (Step - firstStep) * (double)batch.Length / seconds;
                string line = $"{Step},{sum / summed:F4},{validated},{norm:F3},{seconds:F0},{speed:F0}";
                log.WriteLine(line);
                log.Flush();
                Console.WriteLine(line);
                (sum, summed) = (0, 0);
            }

            if (DateTime.UtcNow - saved > saveEvery || Step == lastStep)
            {
                SaveState();
                saved = DateTime.UtcNow;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        optimizer.Dispose();
        Parameters.Dispose();
    }

    /// <summary>Linear warm-up, then half a cosine down to 2 %.</summary>
    private float LearningRate(int step)
    {
        if (step <= WarmupSteps)
            return Plan.LearningRate * step / WarmupSteps;
        double progress = (double)(step - WarmupSteps) / Math.Max(1, Plan.Steps - WarmupSteps);
        return (float)(Plan.LearningRate * (0.02 + 0.98 * 0.5 * (1 + Math.Cos(Math.PI * progress))));
    }

    private void SaveState()
    {
        string path = Path.Combine(folder, "state.bin"), temporary = path + ".new";
        using (var writer = new BinaryWriter(File.Create(temporary)))
        {
            writer.Write(Step);
            writer.Write(nextStory);
            foreach (nint buffer in Buffers())
                writer.Write(MemoryMarshal.AsBytes(new ReadOnlySpan<float>((float*)buffer, Parameters.Length)));
        }

        File.Move(temporary, path, overwrite: true);
    }

    private void LoadState()
    {
        using var reader = new BinaryReader(File.OpenRead(Path.Combine(folder, "state.bin")));
        Step = reader.ReadInt32();
        nextStory = reader.ReadUInt64();
        foreach (nint buffer in Buffers())
            reader.BaseStream.ReadExactly(MemoryMarshal.AsBytes(new Span<float>((float*)buffer, Parameters.Length)));
    }

    private nint[] Buffers()
    {
        fixed (float* first = optimizer.FirstMoments, second = optimizer.SecondMoments)
            return [(nint)Parameters.Weights, (nint)first, (nint)second];
    }
}
