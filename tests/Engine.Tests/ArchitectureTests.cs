using System.Reflection;
using NetArchTest.Rules;

namespace Engine.Tests;

/// <summary>Dependencies point down the data path only: a room may name the rooms listed for it, and no other.</summary>
public sealed class ArchitectureTests
{
    private static readonly Assembly Library = typeof(LanguageModel).Assembly;

    /// <summary>Room → the rooms it may name. The root namespace (the front door) may name all; every room may name its exception.</summary>
    private static readonly Dictionary<string, string[]> Below = new()
    {
        ["Engine.Checkpoints"] = [],
        ["Engine.Transforms"] = ["Engine.Checkpoints"],
        ["Engine.Plans"] = ["Engine.Transforms", "Engine.Checkpoints"],
        ["Engine.Execution"] = ["Engine.Plans", "Engine.Checkpoints"],
        ["Engine.Compression"] = ["Engine.Execution", "Engine.Plans", "Engine.Transforms", "Engine.Checkpoints"],
        ["Engine.Cpu"] = ["Engine.Execution", "Engine.Plans", "Engine.Checkpoints"],
        ["Engine.Text"] = ["Engine.Checkpoints"],
        ["Engine.Sampling"] = [],
        ["Engine.Generation"] = ["Engine.Sampling", "Engine.Text", "Engine.Execution", "Engine.Plans"],
    };

    public static TheoryData<string> Rooms => [.. Below.Keys];

    [Theory]
    [MemberData(nameof(Rooms))]
    public void A_room_names_only_the_rooms_below_it(string room)
    {
        string[] frontDoor = [.. Library.GetTypes().Where(static type => type is { Namespace: "Engine", IsNested: false })
            .Where(static type => type != typeof(EngineException)).Select(static type => type.FullName!)];
        string[] forbidden = [.. Below.Keys.Where(other => other != room && !Below[room].Contains(other)), .. frontDoor];
        PredicateList types = Types.InAssembly(Library).That().ResideInNamespace(room);
        Assert.NotEmpty(types.GetTypes());

        NetArchTest.Rules.TestResult result = types.ShouldNot().HaveDependencyOnAny(forbidden).GetResult();

        Assert.True(result.IsSuccessful, $"{room} names a room above it in {string.Join(", ", result.FailingTypeNames ?? [])}");
    }

    [Fact]
    public void Every_room_of_the_library_is_listed()
    {
        string[] missing =
        [
            .. Library.GetTypes()
                .Where(static type => type.Namespace is { } space && space.StartsWith("Engine.", StringComparison.Ordinal))
                .Where(static type => !Below.Keys.Any(room => type.Namespace == room || type.Namespace!.StartsWith(room + '.', StringComparison.Ordinal)))
                .Select(static type => type.FullName!),
        ];
        Assert.True(missing.Length == 0, string.Join('\n', missing));
    }
}
