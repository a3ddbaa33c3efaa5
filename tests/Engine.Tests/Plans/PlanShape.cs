using System.Text.Json.Nodes;
using Engine.Plans;

namespace Engine.Tests.Plans;

/// <summary>A plan as text without where its weights are: equal for models that are stored in different ways.</summary>
internal static class PlanShape
{
    public static string Of(ModelPlan plan)
    {
        JsonNode node = JsonNode.Parse(PlanText.Of(plan))!;
        Strip(node);
        return node.ToJsonString();
    }

    private static void Strip(JsonNode? node)
    {
        if (node is JsonArray array)
        {
            foreach (JsonNode? element in array)
            {
                Strip(element);
            }
        }
        else if (node is JsonObject plan)
        {
            foreach ((string key, JsonNode? value) in plan.ToArray())
            {
                // Rows and columns of a tensor are where weights are, too.
                if (value is JsonObject weight && weight.ContainsKey("RowStep"))
                {
                    plan[key] = "weight";
                }
                else if (key is "RowsPerHead" or "StoredRows" or "StoredColumns")
                {
                    plan.Remove(key);
                }
                else
                {
                    Strip(value);
                }
            }
        }
    }
}
