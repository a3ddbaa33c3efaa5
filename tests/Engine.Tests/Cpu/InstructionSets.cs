using Engine.Cpu;
using Xunit;

namespace Engine.Tests.Cpu;

/// <summary>Theory data: every instruction set; one that this machine lacks is reported as skipped.</summary>
internal static class InstructionSets
{
    public static TheoryData<InstructionSet> All => [.. Enum.GetValues<InstructionSet>()];

    /// <summary>A backend limited to a set, or a skip.</summary>
    public static CpuBackend Backend(InstructionSet set, int threads = 2)
    {
        Require(set);
        return new CpuBackend(new CpuOptions { Limit = set, Threads = threads });
    }

    public static void Require(InstructionSet set) => Assert.SkipUnless(CpuOptions.Available.Contains(set), $"this machine has no {set}");
}
