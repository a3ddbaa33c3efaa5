using Engine.Cpu;
using Engine.Execution;
using Engine.Plans;
using Engine.Reference;
using Xunit;

namespace Engine.Tests.Cpu;

/// <summary>Recurrent cells on the CPU.</summary>
public sealed class RecurrenceTests
{
    public static TheoryData<InstructionSet> Sets => InstructionSets.All;

    [Theory]
    [MemberData(nameof(Sets))]
    public void Cells_agree_with_the_reference_however_rows_are_shared(InstructionSet set)
    {
        InstructionSets.Require(set);
        Random random = Seed.Fresh();
        using var reference = new ReferenceBackend();
        foreach (RecurrentCell cell in Enum.GetValues<RecurrentCell>())
        {
            foreach ((int rows, int width) in new[] { (1, 1), (3, 15), (1, 4864), (7, 1001), (2, 16), (5, 14) })
            {
                int gates = cell.Gates() * width;
                float[] input = TestRows.Normal(random, rows * gates, 3), hidden = TestRows.Normal(random, rows * gates, 3);
                float[] state = TestRows.Normal(random, rows * width);
                float[] expected = Run(reference), first = [];
                foreach (int threads in new[] { 1, 2, 5 })
                {
                    using CpuBackend cpu = InstructionSets.Backend(set, threads);
                    float[] actual = Run(cpu);
                    first = threads == 1 ? actual : first;
                    TestRows.Close(expected, actual, 1e-6, $"{cell} [{rows}, {width}]");
                    TestRows.SameBits(first, actual, $"{cell} [{rows}, {width}] on {threads} threads");
                }

                float[] Run(IBackend backend)
                {
                    using Activations u = TestRows.Make(backend, input, gates), v = TestRows.Make(backend, hidden, gates);
                    using Activations h = TestRows.Make(backend, state, width);
                    backend.Recur(cell, u, v, h);
                    return TestRows.Read(backend, h);
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(Sets))]
    public void Cells_are_right_far_out(InstructionSet set)
    {
        using CpuBackend cpu = InstructionSets.Backend(set, threads: 1);
        float[] far = [0, 100, -100, 1e30f, -1e30f, float.PositiveInfinity, float.NegativeInfinity];
        using Activations u = TestRows.Make(cpu, far, 7), v = TestRows.Make(cpu, new float[7], 7), h = TestRows.Make(cpu, new float[7], 7);
        cpu.Recur(RecurrentCell.Rnn, u, v, h);
        Assert.Equal([0, 1, -1, 1, -1, 1, -1], TestRows.Read(cpu, h));

        // One element a row: r, z and n alone decide.
        float[] gates = [0, 100, 0, 0, -100, 100, -100, -100, 0];
        using Activations input = TestRows.Make(cpu, gates, 3), hidden = TestRows.Make(cpu, new float[] { 0, 0, 0, 0, 0, 0, 0, 0, 100 }, 3);
        using Activations state = TestRows.Make(cpu, new float[] { 0.25f, 0.25f, 0.25f }, 1);
        cpu.Recur(RecurrentCell.Gru, input, hidden, state);
        Assert.Equal([0.25f, 1, 0], TestRows.Read(cpu, state));
    }

    [Fact]
    public void What_is_no_number_stays_in_its_element_until_it_is_cleared()
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = 1 });
        using Activations u = TestRows.Make(cpu, new float[] { 1, float.NaN, 1, 1 }, 2), v = TestRows.Make(cpu, new float[4], 2);
        using Activations h = TestRows.Make(cpu, new float[4], 2);
        cpu.Recur(RecurrentCell.Rnn, u, v, h);
        Assert.Equal([false, true, false, false], TestRows.Read(cpu, h).Select(float.IsNaN));
        h.Rows = 1;
        cpu.Clear(h);
        h.Rows = 2;
        float[] cleared = TestRows.Read(cpu, h);
        Assert.Equal([0f, 0f], cleared[..2]);
        Assert.All(cleared[2..], static value => Assert.NotEqual(0, value));
    }

    [Fact]
    public void A_warm_cell_allocates_nothing()
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = 2 });
        using Activations gates = TestRows.Make(cpu, new float[3 * 1500 * 2], 3 * 1500), state = TestRows.Make(cpu, new float[1500 * 2], 1500);
        Round();
        Assert.Equal(0, Allocation.Of(Round));

        void Round()
        {
            cpu.Clear(state);
            cpu.Recur(RecurrentCell.Gru, gates, gates, state);
        }
    }

    [Fact]
    public void Operands_that_do_not_fit_are_refused()
    {
        using var cpu = new CpuBackend(new CpuOptions { Threads = 1 });
        using Activations one = TestRows.Make(cpu, 2, 4), three = TestRows.Make(cpu, 2, 12), fewer = TestRows.Make(cpu, 1, 12);
        Assert.Throws<EngineException>(() => cpu.Recur(RecurrentCell.Gru, one, three, one));
        Assert.Throws<EngineException>(() => cpu.Recur(RecurrentCell.Gru, three, fewer, one));
        Assert.Throws<EngineException>(() => cpu.Recur(RecurrentCell.Rnn, one, three, one));
        Assert.Throws<EngineException>(() => cpu.Recur((RecurrentCell)9, one, one, one));
    }
}
