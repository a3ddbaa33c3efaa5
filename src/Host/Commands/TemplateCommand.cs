using System.CommandLine;
using System.CommandLine.Parsing;
using Engine;
using Engine.Text;
using Engine.Text.Templates;
using Host.CommandLine;

namespace Host.Commands;

/// <summary><c>template</c>: a conversation to the prompt that a model reads. Only the tokenizer is loaded.</summary>
internal sealed class TemplateCommand
{
    private readonly Option<string?> model = Options.Model();
    private readonly Option<bool> json = Options.Json();

    private readonly Option<string?> template = new("--template")
    {
        Description = "A Jinja file to use instead of the model's template; with -m the special tokens are still the model's.",
        HelpName = "FILE",
    };

    private readonly Option<string> messages = new("--messages")
    {
        Description = "JSON: an array of messages, or an object with messages, tools, add_generation_prompt and variables of the template.",
        HelpName = "FILE",
        Required = true,
    };

    private readonly Option<string[]> variables = new("--set")
    {
        Description = "A variable of the template, such as bos_token. May be repeated.",
        HelpName = "NAME=TEXT",
        Validators = { RequireAssignments },
    };

    public static Command Create() => new TemplateCommand().ToCommand();

    private Command ToCommand()
    {
        Command command = new("template", "Print the prompt that a chat template makes of a conversation.")
        {
            model, template, messages, variables, json,
        };
        command.SetAction(Run);
        return command;
    }

    private int Run(ParseResult parse)
    {
        (ChatTemplate chatTemplate, Dictionary<string, string> tokens) = Load(parse);
        foreach (string assignment in parse.GetValue(variables) ?? [])
        {
            int equals = assignment.IndexOf('=', StringComparison.Ordinal);
            tokens[assignment[..equals]] = assignment[(equals + 1)..];
        }
        string prompt = chatTemplate.Render(ConversationFile.Read(parse.GetValue(messages)!) with { SpecialTokens = tokens });
        if (parse.GetValue(json))
        {
            Terminal.WriteJson(new TemplateResult(prompt), HostJson.Default.TemplateResult);
        }
        else
        {
            Console.Out.Write(prompt);
            if (!Console.IsOutputRedirected)
            {
                // Only for a terminal's next line: what is piped is the prompt to the byte.
                Console.Out.WriteLine();
            }
        }
        return ExitCode.Success;
    }

    private (ChatTemplate Template, Dictionary<string, string> Tokens) Load(ParseResult parse)
    {
        string? file = parse.GetValue(template);
        if (file is not null && parse.GetValue(model) is null)
        {
            return (ChatTemplate.Parse(Terminal.ReadFile(file), file), []);
        }
        string path = DefaultModel.Resolve(parse.GetValue(model));
        Tokenizer tokenizer = Tokenizer.Load(path);
        string source = file is not null
            ? Terminal.ReadFile(file)
            : tokenizer.ChatTemplate ?? throw new EngineException("the model has no chat template (--template FILE gives one)", path);
        return (ChatTemplate.Parse(source, file ?? path), tokenizer.SpecialTokens.ToDictionary());
    }

    private static void RequireAssignments(OptionResult result)
    {
        foreach (Token token in result.Tokens)
        {
            if (token.Value.IndexOf('=', StringComparison.Ordinal) < 1)
            {
                result.AddError($"--set: expected NAME=TEXT, found '{token.Value}'");
            }
        }
    }
}

/// <summary>What <c>template --json</c> prints.</summary>
/// <param name="Prompt">The rendered conversation.</param>
internal sealed record TemplateResult(string Prompt);
