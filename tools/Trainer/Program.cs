using System.Diagnostics;
using Engine.Checkpoints;
using Tools.StoryGrammar;
using Tools.Trainer;

switch (args.FirstOrDefault())
{
    case "train":
        string folder = Text("--run", "artifacts/story-model");
        bool begun = File.Exists(Path.Combine(folder, "state.bin"));
        using (TrainingRun run = begun ? TrainingRun.Open(folder, args.Contains("--steps") ? (int)Number("--steps", 0) : null) : TrainingRun.Start(folder, PlanFromOptions()))
        {
            Console.WriteLine($"{run.Parameters.Length} weights, step {run.Step} of {run.Plan.Steps}");
            run.Train((int)Number("--limit", int.MaxValue), TimeSpan.FromMinutes(3));
        }

        return 0;
    case "sample":
        using (TrainingRun run = TrainingRun.Open(Text("--run", "artifacts/story-model")))
        using (var model = new LlamaModel(run.Parameters, run.Plan.Shape.Context))
        {
            for (int i = 0; i < (int)Number("--count", 1); i++)
            {
                var dice = new Dice((ulong)Number("--seed", 1) + (ulong)i);
                float temperature = (float)Number("--temperature", 0.8);
                Console.WriteLine(Sampler.Continue(run, model, Text("--prompt", ""), temperature, dice, (int)Number("--tokens", 300)));
            }
        }

        return 0;
    case "export":
        using (TrainingRun run = TrainingRun.Open(Text("--run", "artifacts/story-model")))
            GgufExport.Write(run, Text("--out", "src/Host/default-model.gguf"), Enum.Parse<DType>(Text("--type", nameof(DType.Q8_0))));
        return 0;
    case "check":
        double worst = GradientCheck.Run((ulong)Number("--seed", Stopwatch.GetTimestamp()), Console.Out);
        return worst < 2e-2 ? 0 : 1;
    default:
        Console.Error.WriteLine("usage: Trainer train|sample|export|check [options]; see tools/README.md");
        return 2;
}

TrainingPlan PlanFromOptions() => new(
    new LlamaShape(
        Vocabulary: (int)Number("--vocabulary", 1536), Dimension: (int)Number("--dimension", 128), Layers: (int)Number("--layers", 4),
        Heads: (int)Number("--heads", 4), KvHeads: (int)Number("--kv-heads", 4), FeedForward: (int)Number("--feed-forward", 384),
        Context: 512),
    Seed: (ulong)Number("--seed", 1), Steps: (int)Number("--steps", 6000), Sequences: (int)Number("--sequences", 2),
    Length: (int)Number("--length", 512), LearningRate: (float)Number("--learning-rate", 4e-3),
    TokenizerStories: (int)Number("--tokenizer-stories", 20000));

string Text(string name, string otherwise)
{
    int at = Array.IndexOf(args, name);
    return at < 0 ? otherwise : args[at + 1];
}

double Number(string name, double otherwise)
{
    int at = Array.IndexOf(args, name);
    return at < 0 ? otherwise : double.Parse(args[at + 1]);
}
