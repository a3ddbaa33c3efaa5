using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Engine.Tests.Plans;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Compression;

/// <summary>What is shown of linear maps while a model runs.</summary>
public sealed class LinearObserverTests
{
    [Theory]
    [InlineData("llama tied")]
    [InlineData("gpt2")]
    [InlineData("qwen2_moe")]
    public void Inputs_are_those_of_the_reference_backend_and_watching_changes_nothing(string name)
    {
        int seed = Seed.Fresh().Next();
        TinyModel model = name.EndsWith("moe", StringComparison.Ordinal) ? ExpertModels.Make(name) : TinyModels.Make(name, seed);
        int[] tokens = model.Tokens(20);
        (Dictionary<string, List<float[]>> expected, _) = Watch(model, new ReferenceBackend(), tokens);
        (Dictionary<string, List<float[]>> found, float[][] logits) = Watch(model, new CpuBackend(new CpuOptions { Threads = 2 }), tokens);
        using var unwatched = new ModelHarness(model.ToCheckpoint(), new CpuBackend(new CpuOptions { Threads = 2 }));
        foreach ((float[] plain, float[] watched) in unwatched.Run(tokens, 7).Zip(logits))
        {
            Cpu.TestRows.SameBits(plain, watched, "logits");
        }
        Assert.Equal(expected.Keys.Order(), found.Keys.Order());
        foreach ((string tensor, List<float[]> rows) in expected)
        {
            Assert.Equal(rows.Count, found[tensor].Count);
            foreach ((float[] row, float[] other) in rows.Zip(found[tensor]))
            {
                Cpu.TestRows.Close(row, other, 1e-3, tensor);
            }
        }
    }

    [Fact]
    public void Rows_of_experts_are_those_that_were_sent_there()
    {
        TinyModel model = ExpertModels.Make("qwen2_moe");
        (Dictionary<string, List<float[]>> rows, _) = Watch(model, new CpuBackend(new CpuOptions { Threads = 1 }), model.Tokens(30));
        for (int layer = 0; layer < ExpertModels.Layers; layer++)
        {
            string module = ExpertModels.Module(model.Name, layer);
            int sent = 0;
            for (int expert = 0; expert < ExpertModels.Experts; expert++)
            {
                string start = $"{module}.experts.{expert}.";
                if (!rows.TryGetValue(start + "gate_proj.weight", out List<float[]>? inputs))
                {
                    continue;
                }
                sent += inputs.Count;
                // What goes into the last matrix is what the first two make of what goes into them.
                float[] gate = model.Tensors[start + "gate_proj.weight"].Values, up = model.Tensors[start + "up_proj.weight"].Values;
                foreach ((float[] input, float[] inner) in inputs.Zip(rows[start + "down_proj.weight"]))
                {
                    for (int i = 0; i < ExpertModels.Width; i++)
                    {
                        double g = Dot(gate, i, input), u = Dot(up, i, input);
                        Assert.Equal(g / (1 + Math.Exp(-g)) * u, inner[i], 1e-4);
                    }
                }
            }
            Assert.Equal(30 * 2, sent);
            Assert.Equal(30, rows[$"{module}.shared_expert.gate_proj.weight"].Count);
        }
    }

    private static double Dot(float[] matrix, int row, float[] input) => input.Select((x, i) => (double)x * matrix[row * input.Length + i]).Sum();

    private static (Dictionary<string, List<float[]>> Rows, float[][] Logits) Watch(TinyModel model, IBackend backend, int[] tokens)
    {
        using var harness = new ModelHarness(model.ToCheckpoint(), backend);
        var observer = new Observer();
        harness.Executor.LinearObserver = observer;
        return (observer.Rows, harness.Run(tokens, 7));
    }

    private sealed class Observer : ILinearObserver
    {
        public Dictionary<string, List<float[]>> Rows { get; } = [];

        public bool Wants(LinearPlan linear) => true;

        public void Take(LinearPlan linear, int count, ReadOnlySpan<float> rows)
        {
            string name = linear.Parts[0].Weight!.Tensor;
            if (!Rows.TryGetValue(name, out List<float[]>? list))
            {
                Rows[name] = list = [];
            }
            Assert.Equal(count * linear.Inputs, rows.Length);
            list.AddRange(rows.ToArray().Chunk(linear.Inputs));
        }
    }
}
