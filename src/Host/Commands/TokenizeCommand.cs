using System.CommandLine;
using Engine.Text;
using Host.CommandLine;

namespace Host.Commands;

/// <summary><c>tokenize</c>: text on standard input to token ids. Only the tokenizer is loaded.</summary>
internal sealed class TokenizeCommand
{
    private readonly Option<string?> model = Options.Model();
    private readonly Option<bool> json = Options.Json();

    private readonly Option<bool> noSpecial = new("--no-special")
    {
        Description = "Add no special tokens such as a beginning of sequence.",
    };

    public static Command Create() => new TokenizeCommand().ToCommand();

    private Command ToCommand()
    {
        Command command = new("tokenize", "Turn text on standard input into token ids, and back.") { model, noSpecial, json };
        command.SetAction(Run);
        return command;
    }

    private int Run(ParseResult parse)
    {
        string path = DefaultModel.Resolve(parse.GetValue(model));
        Tokenizer tokenizer = Tokenizer.Load(path);
        string text = Terminal.ReadInput();
        int[] textIds = tokenizer.Encode(text, addSpecial: false);
        TokenizeResult result = new(parse.GetValue(noSpecial) ? textIds : tokenizer.Encode(text), tokenizer.Decode(textIds));
        if (parse.GetValue(json))
        {
            Terminal.WriteJson(result, HostJson.Default.TokenizeResult);
        }
        else
        {
            Console.Out.WriteLine(string.Join(',', result.Ids));
            Terminal.Note($"{result.Ids.Length} tokens");
        }
        return ExitCode.Success;
    }
}

/// <summary>What <c>tokenize --json</c> prints.</summary>
/// <param name="Ids">Token ids.</param>
/// <param name="Decoded">The ids of the text itself, without added special tokens, back as text.</param>
internal sealed record TokenizeResult(int[] Ids, string Decoded);
