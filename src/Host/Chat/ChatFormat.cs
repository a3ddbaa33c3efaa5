using System.Text;
using System.Text.Json.Nodes;
using Engine.Text;
using Engine.Text.Templates;

namespace Host.Chat;

/// <summary>A turn of a conversation.</summary>
/// <param name="Role"><c>system</c>, <c>user</c> or <c>assistant</c>.</param>
/// <param name="Content">Its text.</param>
internal sealed record ChatMessage(string Role, string Content);

/// <summary>How a conversation becomes a prompt, and what ends a reply besides the model's own end token.</summary>
internal abstract class ChatFormat(Tokenizer tokenizer)
{
    /// <summary>Text that ends a reply.</summary>
    public virtual IReadOnlyList<string> Stops => [];

    /// <summary>The model's tokenizer.</summary>
    protected Tokenizer Tokenizer { get; } = tokenizer;

    /// <summary>The format that the model was trained on, or <see cref="PlainChatFormat"/> where it ships none.</summary>
    public static ChatFormat For(Tokenizer tokenizer, string modelPath) =>
        tokenizer.ChatTemplate is { } source
            ? new TemplateChatFormat(tokenizer, ChatTemplate.Parse(source, modelPath))
            : new PlainChatFormat(tokenizer);

    /// <summary>The prompt that asks for the next reply.</summary>
    /// <exception cref="Engine.EngineException">The template refuses the conversation.</exception>
    public abstract int[] Encode(IReadOnlyList<ChatMessage> messages);
}

/// <summary>The chat template that came with the model.</summary>
internal sealed class TemplateChatFormat(Tokenizer tokenizer, ChatTemplate template) : ChatFormat(tokenizer)
{
    public override int[] Encode(IReadOnlyList<ChatMessage> messages)
    {
        JsonArray array = [.. messages.Select(message => new JsonObject { ["role"] = message.Role, ["content"] = message.Content })];
        string prompt = template.Render(new ChatTemplateInput
        {
            Messages = array,
            AddGenerationPrompt = true,
            SpecialTokens = Tokenizer.SpecialTokens,
        });
        // The template writes the beginning of sequence itself where the model wants one.
        return Tokenizer.Encode(prompt, addSpecial: false);
    }
}

/// <summary>A transcript, for models that were never taught to chat.</summary>
internal sealed class PlainChatFormat(Tokenizer tokenizer) : ChatFormat(tokenizer)
{
    private const string User = "User:", Assistant = "Assistant:";

    public override IReadOnlyList<string> Stops { get; } = ["\n" + User];

    public override int[] Encode(IReadOnlyList<ChatMessage> messages)
    {
        StringBuilder transcript = new();
        foreach (ChatMessage message in messages)
        {
            transcript.Append(message.Role switch { "user" => $"{User} ", "assistant" => $"{Assistant} ", _ => "" });
            transcript.Append(message.Content.Trim()).Append('\n');
        }
        return Tokenizer.Encode(transcript.Append(Assistant).ToString());
    }
}
