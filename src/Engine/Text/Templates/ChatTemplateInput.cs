using System.Text.Json.Nodes;

namespace Engine.Text.Templates;

/// <summary>What a chat template is rendered with. JSON passes through as it is, so that fields only the template knows reach it.</summary>
public sealed record ChatTemplateInput
{
    /// <summary>
    /// The conversation: objects with <c>role</c>, usually <c>content</c> (a string or parts), and whatever else the template
    /// reads.
    /// </summary>
    public required JsonArray Messages { get; init; }

    /// <summary>The tools the model may call, as JSON schemas of functions, or null.</summary>
    public JsonArray? Tools { get; init; }

    /// <summary>Documents for retrieval-augmented generation, or null.</summary>
    public JsonArray? Documents { get; init; }

    /// <summary>Whether to end with what opens the assistant's answer.</summary>
    public bool AddGenerationPrompt { get; init; }

    /// <summary>
    /// The tokenizer's special tokens under the names templates use: <c>bos_token</c>, <c>eos_token</c>, <c>unk_token</c>,
    /// <c>pad_token</c>.
    /// </summary>
    public IReadOnlyDictionary<string, string> SpecialTokens { get; init; } = new Dictionary<string, string>();

    /// <summary>Further variables, such as <c>enable_thinking</c>; they win over special tokens of the same name. Null for none.</summary>
    public JsonObject? Variables { get; init; }

    /// <summary>
    /// Whether absent tools and documents are undefined. Otherwise they are none, as Hugging Face passes them; a few templates go
    /// through <c>tools</c> without looking first, and render without tools only where the variable is left out.
    /// </summary>
    public bool OmitAbsent { get; init; }

    /// <summary>The clock of <c>strftime_now</c>, in its local time.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>What rendering may spend.</summary>
    public ChatTemplateLimits Limits { get; init; } = ChatTemplateLimits.Default;

    /// <summary>Puts the input into the template's scope.</summary>
    internal void AddTo(Scope scope)
    {
        foreach ((string name, string token) in SpecialTokens) scope.Set(name, new StringValue(token));
        foreach ((string name, JsonNode? value) in JsonValues.Properties(Variables ?? [])) scope.Set(name, JsonValues.ToValue(value));
        scope.Set("messages", JsonValues.ToValue(Messages));
        if (Tools is not null || !OmitAbsent) scope.Set("tools", JsonValues.ToValue(Tools));
        if (Documents is not null || !OmitAbsent) scope.Set("documents", JsonValues.ToValue(Documents));
        scope.Set("add_generation_prompt", BoolValue.Of(AddGenerationPrompt));
    }
}
