using Tools.StoryGrammar;

// StoryGrammar [--seed S] [--count N]   prints N stories, one to a line
// StoryGrammar --check [--count N]      checks the stories of N seeds; exit code 1 when one breaks a rule
bool check = args.Contains("--check");
ulong seed = Option("--seed", 1);
int count = (int)Option("--count", check ? 10_000UL : 10UL);
if (check)
    return SelfCheck.Run(seed, count, Console.Out) == 0 ? 0 : 1;
for (ulong i = 0; i < (ulong)count; i++)
    Console.WriteLine(StoryGenerator.Write(seed + i));
return 0;

ulong Option(string name, ulong otherwise)
{
    int at = Array.IndexOf(args, name);
    return at < 0 ? otherwise : ulong.Parse(args[at + 1]);
}
