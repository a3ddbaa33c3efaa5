namespace Engine.Text.Templates;

/// <summary>
/// A chat template: Jinja that turns a conversation into the prompt its model was trained on. Rendered as the Hugging Face
/// library does it: jinja2's immutable sandbox with <c>trim_blocks</c>, <c>lstrip_blocks</c>, loop controls and the
/// <c>generation</c> tag, and
/// with <c>tojson</c>, <c>strftime_now</c> and <c>raise_exception</c> as it defines them. Parsed once, rendered from any thread.
/// </summary>
public sealed class ChatTemplate
{
    private readonly Statement[] _body;
    private readonly string? _file;

    private ChatTemplate(string source, Statement[] body, string? file) => (Source, _body, _file) = (source, body, file);

    /// <summary>The text of the template.</summary>
    public string Source { get; }

    /// <summary>Parses a template.</summary>
    /// <param name="source">The text, as in <c>chat_template</c> of <c>tokenizer_config.json</c> or <c>tokenizer.chat_template</c>
    /// of a GGUF file.</param>
    /// <param name="file">Where it comes from, for error messages, or null.</param>
    /// <exception cref="EngineException">The text is no template that can be rendered; names line and column.</exception>
    public static ChatTemplate Parse(string source, string? file = null)
    {
        ArgumentNullException.ThrowIfNull(source);
        try
        {
            return new ChatTemplate(source, Parser.Parse(source), file);
        }
        catch (TemplateFault fault)
        {
            throw fault.ToEngineException(file);
        }
    }

    /// <summary>Renders a conversation.</summary>
    /// <exception cref="EngineException">
    /// The template refuses the conversation with <c>raise_exception</c> (the reason is its message), does something that is an error in
    /// Python, or exceeds the <see cref="ChatTemplateInput.Limits"/>; names the line.
    /// </exception>
    public string Render(ChatTemplateInput input)
    {
        ArgumentNullException.ThrowIfNull(input);
        try
        {
            var globals = new Scope(null);
            Globals.AddTo(globals);
            var variables = new Scope(globals);
            input.AddTo(variables);
            return new Interpreter(variables, input.Clock, input.Limits).Render(_body);
        }
        catch (TemplateFault fault)
        {
            throw fault.ToEngineException(_file);
        }
    }
}
