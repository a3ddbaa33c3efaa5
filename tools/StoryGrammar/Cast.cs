namespace Tools.StoryGrammar;

/// <summary>What sort of hero a story has; openings are written for one sort each.</summary>
public enum HeroKind
{
    /// <summary>A girl or a boy with a name.</summary>
    Child,
    /// <summary>An animal, a robot, a farmer … with a name.</summary>
    NamedCreature,
    /// <summary>"The little dog": an animal or a person without a name.</summary>
    PlainCreature,
    /// <summary>Two children; they act together and take plural words.</summary>
    Pair,
}

/// <summary>The pronouns of one character or of a pair.</summary>
/// <param name="He">Subject: he, she, they.</param>
/// <param name="Him">Object: him, her, them.</param>
/// <param name="His">Possessive: his, her, their.</param>
/// <param name="Himself">Reflexive.</param>
public sealed record Pronouns(string He, string Him, string His, string Himself)
{
    /// <summary>For a boy or a male animal.</summary>
    public static Pronouns Male { get; } = new("he", "him", "his", "himself");

    /// <summary>For a girl or a female animal.</summary>
    public static Pronouns Female { get; } = new("she", "her", "her", "herself");

    /// <summary>For two heroes.</summary>
    public static Pronouns Plural { get; } = new("they", "them", "their", "themselves");
}

/// <summary>
/// The characters of one story and the words that stand for them. Variables: <c>hero he him his himself kind</c> for the hero, the same
/// with a leading <c>f</c> for the friend (<c>friend fhe …</c>, <c>fintro</c> = "a boy named Sam", <c>fname</c> = "her friend Sam") and
/// with <c>e</c> for the elder (<c>elder ehe …</c>).
/// </summary>
public sealed class Cast
{
    private static readonly string[] onsets =
        [
            "B", "D", "F", "G", "H", "J", "K", "L", "M", "N", "P", "R", "S", "T", "V", "W", "Z", "Br", "Cl", "Dr", "Fl", "Gr", "Pr",
            "Sh", "St", "Tr", "Ch", "Th",
        ];
    private static readonly string[] vowels = ["a", "e", "i", "o", "u", "ai", "ee", "oo"];
    private static readonly string[] codas =
    [
        "", "n", "l", "m", "r", "s", "x", "ck", "nd", "lly", "ra", "na", "la", "by", "ko", "mo", "ty", "ver", "lin",
    ];

    private Cast(HeroKind kind, IReadOnlyDictionary<string, string> words) => (Kind, Words) = (kind, words);

    /// <summary>The sort of hero.</summary>
    public HeroKind Kind { get; }

    /// <summary>Variable name → text.</summary>
    public IReadOnlyDictionary<string, string> Words { get; }

    /// <summary>Chooses the characters of a story.</summary>
    public static Cast Choose(Dice dice)
    {
        HeroKind kind = dice.NextDouble() switch
        {
            < 0.42 => HeroKind.Child,
            < 0.66 => HeroKind.NamedCreature,
            < 0.82 => HeroKind.PlainCreature,
            _ => HeroKind.Pair,
        };
        var words = new Dictionary<string, string>(StringComparer.Ordinal);
        bool female = dice.Chance(0.5);
        Pronouns pronouns = female ? Pronouns.Female : Pronouns.Male;
        bool person = kind is HeroKind.NamedCreature && dice.Chance(0.15) || kind is HeroKind.PlainCreature && dice.Chance(0.25);
        string species = dice.Pick(person ? female ? Lexicon.Women : Lexicon.Men : Lexicon.Creatures);
        string name = person || kind is HeroKind.Child or HeroKind.Pair ? ChildName(dice, female) : CreatureName(dice);
        switch (kind)
        {
            case HeroKind.Child:
                words["hero"] = name;
                words["kind"] = female ? "girl" : "boy";
                break;
            case HeroKind.NamedCreature:
                words["hero"] = name;
                words["kind"] = species;
                break;
            case HeroKind.PlainCreature:
                string adjective = dice.Pick(person ? Lexicon.PersonAdjectives : Lexicon.CreatureAdjectives);
                words["adjective"] = adjective;
                words["kind"] = species;
                words["hero"] = dice.Chance(0.5) ? $"the {adjective} {species}" : $"the {species}";
                break;
            default:
                bool otherFemale = dice.Chance(0.7) ? !female : female;
                string other = Another(name, () => ChildName(dice, otherFemale));
                words["one"] = name;
                words["other"] = other;
                words["hero"] = $"{name} and {other}";
                words["siblings"] = (female, otherFemale) switch
                {
                    (true, true) => "sisters",
                    (false, false) => "brothers",
                    (true, false) => "sister and brother",
                    (false, true) => "brother and sister",
                };
                words["kind"] = "children";
                pronouns = Pronouns.Plural;
                break;
        }

        Add(words, "", pronouns);
        ChooseFriend(dice, kind, words, female, name, species);
        ChooseElder(dice, kind, words);
        return new Cast(kind, words);
    }

    private static void ChooseFriend(
        Dice dice, HeroKind kind, Dictionary<string, string> words, bool heroFemale, string heroName, string heroSpecies)
    {
        // The friend is mostly of the other gender, so that "he" and "she" stay clear.
        bool female = dice.Chance(0.8) ? !heroFemale : heroFemale;
        bool child = kind is HeroKind.Child or HeroKind.Pair && dice.Chance(0.65);
        string? second = words.GetValueOrDefault("other");
        string name = Another(heroName, () => Another(second, () => child ? ChildName(dice, female) : CreatureName(dice)));
        string species = child ? (female ? "girl" : "boy") : Another(heroSpecies, () => dice.Pick(Lexicon.Creatures));
        words["friend"] = name;
        words["fkind"] = species;
        words["fname"] = child ? $"{words["his"]} friend {name}" : $"{name} the {species}";
        words["fintro"] = $"a {{friendadjective}} {species} named {name}";
        Add(words, "f", female ? Pronouns.Female : Pronouns.Male);
    }

    private static void ChooseElder(Dice dice, HeroKind kind, Dictionary<string, string> words)
    {
        bool female = dice.Chance(0.5);
        string[] family = female ? ["mother", "grandmother", "aunt", "mother"] : ["father", "grandfather", "uncle", "father"];
        string[] wise = female
            ? ["the old owl", "the wise old turtle", "old Mrs. Goose", "the kind old woman"]
            : ["the old bear", "the wise old owl", "old Mr. Badger", "the kind old farmer"];
        bool kin = kind is HeroKind.Child or HeroKind.Pair ? dice.Chance(0.9) : dice.Chance(0.4);
        string his = words["his"];
        words["elder"] = kin ? $"{his} {dice.Pick(family)}" : dice.Pick(wise);
        Add(words, "e", female ? Pronouns.Female : Pronouns.Male);
    }

    private static void Add(Dictionary<string, string> words, string prefix, Pronouns pronouns)
    {
        words[prefix + "he"] = pronouns.He;
        words[prefix + "him"] = pronouns.Him;
        words[prefix + "his"] = pronouns.His;
        words[prefix + "himself"] = pronouns.Himself;
    }

    /// <summary>Mostly a common name; sometimes an invented one, so that a model learns to carry any name through a story.</summary>
    private static string ChildName(Dice dice, bool female) =>
        dice.Chance(0.05) ? Invented(dice) : dice.Pick(female ? Lexicon.GirlNames : Lexicon.BoyNames);

    private static string CreatureName(Dice dice) => dice.Chance(0.05) ? Invented(dice) : dice.Pick(Lexicon.CreatureNames);

    private static string Invented(Dice dice)
    {
        string name = dice.Pick(onsets) + dice.Pick(vowels) + dice.Pick(codas);
        // "We", "She" and "Be" are taken.
        return name.Length > 3 ? name : Invented(dice);
    }

    private static string Another(string? taken, Func<string> draw)
    {
        string drawn = draw();
        while (drawn == taken)
            drawn = draw();
        return drawn;
    }
}
