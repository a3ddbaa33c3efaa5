using System.Text.Json;
using Engine.Plans;

namespace Engine.Tests.Plans;

/// <summary>A plan as text: records compare their arrays by identity, texts by content.</summary>
internal static class PlanText
{
    private static readonly JsonSerializerOptions Options = new() { WriteIndented = true };

    public static string Of(ModelPlan plan) => JsonSerializer.Serialize(plan, Options);
}
