using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Xunit;

namespace Engine.Tests.Checkpoints;

/// <summary>Hostile files: every one is refused with our exception, or opens, as the manifest says; none crashes, hangs or allocates what
/// its header claims.</summary>
public sealed class MalformedTests
{
    private const long AllowedAllocation = 8 << 20;

    private static readonly JsonArray entries =
        JsonNode.Parse(File.ReadAllText(FormatGoldens.PathOf("malformed", "manifest.json")))!["entries"]!.AsArray();

    public static TheoryData<string> Ids => [.. entries.Select(static entry => entry!["id"]!.GetValue<string>())];

    [Theory]
    [MemberData(nameof(Ids))]
    public void Agrees_with_the_manifest(string id)
    {
        JsonNode entry = entries.Single(candidate => candidate!["id"]!.GetValue<string>() == id)!;
        string path = FormatGoldens.PathOf("malformed", entry["path"]!.GetValue<string>()), must = entry["must"]!.GetValue<string>();

        long before = GC.GetAllocatedBytesForCurrentThread();
        EngineException? refusal = null;
        try
        {
            using Checkpoint checkpoint = CheckpointFile.Open(path);
            foreach (string name in checkpoint.TensorNames)
                checkpoint[name].RequireFinite();
        }
        catch (EngineException exception)
        {
            refusal = exception;
        }
        Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < AllowedAllocation, "it allocated as much as the header claims");

        if (must == "reject")
            Assert.NotNull(refusal);
        if (must == "accept")
            Assert.Null(refusal);
        if (refusal is not null)
        {
            Assert.NotNull(refusal.File);
            Assert.NotEqual("", refusal.Reason);
        }
    }
}
