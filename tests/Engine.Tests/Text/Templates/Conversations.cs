using System.Text.Json.Nodes;
using Engine.Text.Templates;

namespace Engine.Tests.Text.Templates;

/// <summary>Short ways to render in tests.</summary>
internal static class Conversations
{
    /// <summary>Renders a template with variables given as JSON and no messages.</summary>
    public static string Render(string template, string variables = "{}", ChatTemplateLimits? limits = null) =>
        ChatTemplate.Parse(template).Render(new ChatTemplateInput
        {
            Messages = [],
            Variables = JsonNode.Parse(variables)!.AsObject(),
            Limits = limits ?? ChatTemplateLimits.Default,
            Clock = new FixedClock(new DateTime(2026, 3, 4, 5, 6, 7)),
        });

    /// <summary>A clock that stands still, in a zone where local time is universal time.</summary>
    public sealed class FixedClock(DateTime now) : TimeProvider
    {
        public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;

        public override DateTimeOffset GetUtcNow() => new(now, TimeSpan.Zero);
    }
}
