using System.Globalization;
using System.Text.Json;

namespace Host.Tests;

public sealed class LogitsTests
{
    [Theory]
    [InlineData("stories260K", "models/stories260K/stories260K-f32.gguf", 1e-3)]
    [InlineData("stories260K", "models/stories260K/hf", 1e-3)]
    [InlineData("stories15M", "models/stories15M/hf", 0.05)]
    [InlineData("minimind2", "models/minimind2-small/minimind2-small-q8_0.gguf", 0.5)]
    public void TheLargestLogitsAreTheReferences(string model, string path, double tolerance)
    {
        foreach (Golden golden in Golden.For(model))
        {
            string ids = string.Join(',', golden.PromptIds);
            JsonElement json = HostProcess.Run("logits", "-m", SharedFiles.Require(path), "--ids", ids, "--json").Json;
            JsonElement prefill = json.GetProperty("prefill");
            Assert.Equal(golden.PromptIds.Length, prefill.GetArrayLength());
            JsonElement last = prefill[golden.PromptIds.Length - 1];
            foreach ((int id, float logit, _) in golden.Top)
            {
                float found = last[id].GetSingle();
                Assert.True(Math.Abs(found - logit) < tolerance, $"{golden.Name}, token {id}: {found} for {logit}");
            }
        }
    }

    [Fact]
    public void DecodedRowsAreThoseOfThePrompt()
    {
        string model = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        JsonElement whole = HostProcess.Run("logits", "-m", model, "--ids", "1,403,407,261,378", "--json").Json;
        JsonElement split = HostProcess.Run("logits", "-m", model, "--ids", "1,403", "--decode", "407,261,378", "--json").Json;
        Assert.Equal(0, whole.GetProperty("decode").GetArrayLength());
        string[] all = Rows(whole.GetProperty("prefill"));
        // Bit for bit: a row's arithmetic does not depend on the rows beside it.
        string[] parts = [.. Rows(split.GetProperty("prefill")), .. Rows(split.GetProperty("decode"))];
        Assert.Equal(all, parts);

        static string[] Rows(JsonElement rows) => [.. rows.EnumerateArray().Select(row => row.GetRawText())];
    }

    [Fact]
    public void NumbersRoundTripAsFloat32()
    {
        string model = SharedFiles.Require("models/stories260K/stories260K-f32.gguf");
        JsonElement row = HostProcess.Run("logits", "-m", model, "--ids", "1", "--json").Json.GetProperty("prefill")[0];
        Assert.Equal(512, row.GetArrayLength());
        foreach (JsonElement number in row.EnumerateArray())
        {
            string written = number.GetRawText();
            Assert.Equal(float.Parse(written, CultureInfo.InvariantCulture).ToString("R", CultureInfo.InvariantCulture), written);
        }
        Assert.True(row.EnumerateArray().Select(number => number.GetRawText()).Distinct().Count() > 500, "digits are missing");
    }
}
