using System.Text.Json;

namespace Host.Tests;

/// <summary>What an independent engine printed for real models: the five largest logits after them, greedy continuations.</summary>
internal sealed record Golden(string Name, string Prompt, int[] PromptIds, (int Id, float Logit, float Logprob)[] Top, int[] Greedy)
{
    /// <summary>All entries for a model, by the beginning of their name.</summary>
    public static IReadOnlyList<Golden> For(string model)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(SharedFiles.Require("models/golden.json")));
        Golden[] entries =
        [
            .. document.RootElement.EnumerateArray()
                .Where(entry => entry.GetProperty("model").GetString()!.StartsWith(model, StringComparison.Ordinal))
                .Where(entry => !entry.GetProperty("model").GetString()!.Contains("lora", StringComparison.Ordinal))
                .Select(entry => new Golden(
                    entry.GetProperty("model").GetString()!, entry.GetProperty("prompt").GetString()!, Ids(entry.GetProperty("prompt_ids")),
                    [.. entry.GetProperty("top5_id_logit_logprob_of_last_prompt_position").EnumerateArray()
                        .Select(top => (top[0].GetInt32(), top[1].GetSingle(), top[2].GetSingle()))],
                    Ids(entry.GetProperty("greedy_ids")))),
        ];
        Assert.NotEmpty(entries);
        return entries;
    }

    public static int[] Ids(JsonElement array) => [.. array.EnumerateArray().Select(id => id.GetInt32())];
}
