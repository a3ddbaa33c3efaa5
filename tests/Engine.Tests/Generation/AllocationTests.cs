using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Execution;
using Engine.Generation;
using Engine.Sampling;
using Engine.Text;

namespace Engine.Tests.Generation;

/// <summary>After warm-up, a generated token costs no managed memory: scheduling, forward pass, sampling, text and hand-over included.</summary>
public sealed class AllocationTests
{
    [Theory]
    [InlineData(0f)]
    [InlineData(0.8f)]
    public void A_token_allocates_nothing(float temperature)
    {
        using Checkpoint checkpoint = CheckpointFile.Open(ModelHarness.ShippedModel);
        Tokenizer tokenizer = Tokenizer.Load(checkpoint);
        Detokenizer everyText = tokenizer.CreateDetokenizer();
        for (int id = 0; id < tokenizer.VocabularySize; id++)
        {
            everyText.Append(id); // A token's text is made when it is first seen.
        }
        using ModelHarness model = new(
            CheckpointFile.Open(ModelHarness.ShippedModel), new CpuBackend(new CpuOptions { Threads = 1 }), KvFormat.F16, maxRows: 64);
        GenerationRequest request = new()
        {
            PromptIds = tokenizer.Encode("Once upon a time"),
            IgnoreEndOfSequence = true,
            Sampling = new SamplingOptions { Temperature = temperature, Seed = 1, RepetitionPenalty = 1.1f },
        };
        ActiveGeneration generation = new([.. request.PromptIds], 1000, request, tokenizer);
        KvTrack track = model.NewTrack();
        Assert.True(model.Cache.TryReserve(track, 420));
        Sequence sequence = new(0, generation.Prompt, [track]);
        generation.Start(sequence, cached: 0);
        StepPlan plan = new(model.Cache.SlotCount);
        List<Sequence> planned = [];
        Sequence[] sequences = [sequence];
        FinishedRowConsumer accept = (in FinishedRow row, Span<float> logits) =>
        {
            sequence.Finish();
            if (!logits.IsEmpty)
            {
                generation.Accept(row, logits);
            }
        };

        Generate(150);
        Assert.Equal(0, Allocation.Of(() => Generate(25)));

        void Generate(int tokens)
        {
            for (int i = 0; i < tokens; i++)
            {
                Scheduler.Assign(sequences, model.Executor.MaxRows);
                Scheduler.Fill(plan, model.Cache, sequences, planned);
                model.Executor.Step(plan, model.Cache.Storage, accept);
                Scheduler.Complete(plan, model.Cache, planned);
                Assert.True(generation.Stream.TryRead(out GeneratedToken token) && token.Finish is null);
            }
        }
    }
}
