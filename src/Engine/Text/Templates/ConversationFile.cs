using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Engine.Checkpoints;

namespace Engine.Text.Templates;

/// <summary>
/// Reads a conversation written as JSON: an array of messages, or an object with <c>messages</c> and optionally <c>tools</c>,
/// <c>documents</c>, <c>add_generation_prompt</c> (true where absent) and variables of the template under their own names.
/// </summary>
public static class ConversationFile
{
    private static readonly JsonDocumentOptions Lenient = new() { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true };

    private static readonly JsonReaderOptions LenientReader = new() { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true };

    /// <summary>Reads a file.</summary>
    /// <exception cref="EngineException">The file cannot be read or is no conversation; names the field.</exception>
    public static ChatTemplateInput Read(string path)
    {
        try
        {
            return Parse(File.ReadAllText(path, new UTF8Encoding(false, throwOnInvalidBytes: true)), path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new EngineException($"the conversation cannot be read: {e.Message}", path, inner: e);
        }
        catch (DecoderFallbackException e)
        {
            throw new EngineException("the conversation is not UTF-8 text", path, inner: e);
        }
    }

    /// <summary>Reads a text.</summary>
    /// <param name="json">The text.</param>
    /// <param name="file">Where it comes from, for error messages, or null.</param>
    /// <exception cref="EngineException">The text is no conversation; names the field.</exception>
    public static ChatTemplateInput Parse(string json, string? file = null)
    {
        ArgumentNullException.ThrowIfNull(json);
        file ??= "conversation";
        JsonNode? root;
        try
        {
            JsonText.RequireUnicode(Encoding.UTF8.GetBytes(json), LenientReader);
            root = JsonNode.Parse(json, documentOptions: Lenient);
        }
        catch (JsonException e)
        {
            throw new EngineException($"this is not JSON: {e.Message}", file, inner: e);
        }
        return root switch
        {
            JsonArray messages => new ChatTemplateInput { Messages = CheckMessages(messages, file), AddGenerationPrompt = true },
            JsonObject fields => FromObject(fields, file),
            _ => throw new EngineException($"expected an array of messages or an object with 'messages', found {Describe(root)}", file),
        };
    }

    private static ChatTemplateInput FromObject(JsonObject fields, string file)
    {
        var variables = new JsonObject();
        JsonArray? messages = null, tools = null, documents = null;
        bool addGenerationPrompt = true;
        foreach ((string name, JsonNode? value) in Properties(fields, file))
        {
            switch (name)
            {
                case "messages": messages = CheckMessages(AsArray(value, file, name), file); break;
                case "tools": tools = value is null ? null : AsArray(value, file, name); break;
                case "documents": documents = value is null ? null : AsArray(value, file, name); break;
                case "add_generation_prompt":
                    addGenerationPrompt = value?.GetValueKind() switch
                    {
                        JsonValueKind.True => true,
                        JsonValueKind.False => false,
                        _ => throw new EngineException($"expected true or false, found {Describe(value)}", file, name),
                    };
                    break;
                default: variables[name] = value?.DeepClone(); break;
            }
        }
        return new ChatTemplateInput
        {
            Messages = messages ?? throw new EngineException("the field is missing", file, "messages"),
            Tools = tools,
            Documents = documents,
            AddGenerationPrompt = addGenerationPrompt,
            Variables = variables.Count > 0 ? variables : null,
        };
    }

    private static JsonArray CheckMessages(JsonArray messages, string file)
    {
        for (int i = 0; i < messages.Count; i++)
        {
            string item = $"messages[{i}]";
            if (messages[i] is not JsonObject message)
                throw new EngineException($"expected an object, found {Describe(messages[i])}", file, item);
            JsonNode? role = null, content = null;
            foreach ((string name, JsonNode? value) in Properties(message, file))
            {
                if (name == "role") role = value;
                if (name == "content") content = value;
            }
            if (role?.GetValueKind() != JsonValueKind.String)
                throw new EngineException($"expected a string, found {Describe(role)}", file, item + ".role");
            if (content is not (null or JsonArray) && content.GetValueKind() != JsonValueKind.String)
                throw new EngineException($"expected a string or an array of parts, found {Describe(content)}", file, item + ".content");
        }
        return messages;
    }

    private static IEnumerable<KeyValuePair<string, JsonNode?>> Properties(JsonObject fields, string file)
    {
        try
        {
            return JsonValues.Properties(fields);
        }
        catch (TemplateFault fault)
        {
            throw fault.ToEngineException(file);
        }
    }

    private static JsonArray AsArray(JsonNode? value, string file, string name) =>
        value as JsonArray ?? throw new EngineException($"expected an array, found {Describe(value)}", file, name);

    private static string Describe(JsonNode? node) => node?.GetValueKind() switch
    {
        null or JsonValueKind.Null => "nothing",
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "an array",
        JsonValueKind.String => "a string",
        JsonValueKind.Number => "a number",
        _ => "true or false",
    };
}
