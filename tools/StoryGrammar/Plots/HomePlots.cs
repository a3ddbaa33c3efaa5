namespace Tools.StoryGrammar.Plots;

/// <summary>Stories at home: a lost thing, a broken thing, cooking, bedtime, tidying, learning.</summary>
internal static class HomePlots
{
    internal static IReadOnlyList<Plot> All { get; } = new Plot[]
    {
        new("a lost thing", "it is good to take care of things",
        [
            [
                "{he} had a {color} {toy} that {he} loved very much.",
                "{his} favorite thing was a {color} {toy}.",
                "{elder} had given {him} a {color} {toy}.",
            ],
            [
                "One {weather} {time}, the {toy} was gone.",
                "But one {time}, {he} could not find the {toy}.",
                "[One {time2}|One day|Then one {time2}], {hero} looked for it, but it was not there.",
            ],
            [
                "\"Where is <my|our> {toy}?\" cried {hero}.",
                "{he} felt {sad}.",
                "{hero} began to cry.",
                "\"Oh no!\" said {hero}. \"<My|Our> {toy} is lost!\"",
            ],
            [
                "{he} looked {hiding}, but it was not there.",
                "First, {he} looked {hiding}. Then {he} looked {hiding2}.",
                "{he} looked {hiding} and {hiding2}, but {he} did not find it.",
            ],
            [
                "{he} asked {elder}, \"Have you seen <my|our> {toy}?\"",
                "\"Can you help <me|us>?\" {he} asked {elder}.",
                "{he} ran to {elder} for help.",
            ],
            [
                "\"Think about where you played last,\" said {elder}.",
                "\"Let us look together,\" said {elder}.",
                "{elder} took a lantern and helped {him} look.",
            ],
            ["Then {hero} remembered that {he} had played {place.at}.", "", "Then {he} saw something {color} {hiding3}."],
            [
                "{he} ran [there|fast] and looked {hiding3}. There it was!",
                "The {toy} was {hiding3}!",
                "At last, {he} found the {color} {toy} {hiding3}.",
            ],
            [
                "{he} hugged {elder}. \"Thank you for your help,\" {he} said.",
                "{he} held the {toy} tight.",
                "\"<I|We> will take better care of it now,\" said {hero}.",
            ],
        ]),
        new("a broken thing", "it is best to tell the truth",
        [
            [
                "[One {time2}|One day|Then one {time2}], {hero} <was|were> playing with a {toy} in the house.",
                "One rainy {time}, {hero} ran around the kitchen.",
                "{elder} said, \"Please do not run in the house.\"",
            ],
            ["Crash! {mess} fell [down|to the floor] and broke.", "Suddenly, {he} bumped into the table, and {mess} fell and broke."],
            [
                "\"Oh no,\" whispered {hero}. {his} <heart|hearts> beat fast.",
                "{hero} <was|were> {sad}. What would {elder} say?",
                "{he} hid the pieces {indoors} and told no one.",
            ],
            [
                "{elder} came in and asked, \"What happened here?\"",
                "Soon {elder} came home and looked around.",
                "\"What was that noise?\" asked {elder}.",
            ],
            ["{hero} wanted to say that [the wind|the cat|a bird] did it.", "{hero} looked at the floor and said nothing at first.", ""],
            [
                "But {he} took a deep breath and told the truth.",
                "\"It was <me|us>,\" said {hero}. \"<I am|We are> very sorry.\"",
                "Then {he} began to cry and told {elder} everything.",
            ],
            [
                "{elder} was not angry. \"Thank you for telling the truth,\" {ehe} said.",
                "\"Things can be fixed,\" said {elder}. \"It was brave to tell me.\"",
                "{elder} gave {him} a hug.",
            ],
            [
                "Together they cleaned the floor.",
                "They picked up the pieces and used glue to fix it.",
                "They painted a new one, and it was {color}.",
            ],
            ["", "It looked different now, but {elder} liked it even more.", "After that, {hero} only played ball outside."],
        ]),
        new("cooking", "many hands make light work",
        [
            [
                "One {weather} {time}, {hero} and {elder} wanted to make {dish.a}.",
                "{hero} <was|were> hungry. \"Let us make {dish.a},\" said {elder}.",
                "{hero} wanted to make {dish.a} for {elder}.",
            ],
            ["They put on aprons and washed their hands.", "{he} found a big {color} pot.", "{he} stood on a chair to reach the table."],
            [
                "They made it with {dish.with}.",
                "They mixed {dish.with} in a [big|{color}] bowl.",
                "First, they needed things like {dish.with}.",
            ],
            [
                "But there was no [salt|milk|sugar|butter] in the kitchen.",
                "{hero} spilled the flour, and everything turned white.",
                "The spoon fell on the floor with a loud noise.",
            ],
            ["\"What can we do?\" asked {hero}.", "\"It is fine,\" said {elder} and laughed.", "\"Do not worry,\" said {elder}."],
            [
                "{fname} lived next door and brought what they needed.",
                "They asked {fname} for help, and {fhe} came at once.",
                "They cleaned up and tried again.",
            ],
            [
                "{he} stirred and stirred until {his} <arm was|arms were> tired.",
                "They waited by the warm oven.",
                "Soon the whole house smelled good.",
            ],
            ["At last, the {dish} was ready.", "\"It is ready!\" called {elder}.", "They put the {dish} on a {color2} plate."],
            [
                "They ate it all and wanted more.",
                "It was hot and sweet and good.",
                "They shared it with {fname}, and nothing was left.",
                "\"This is the best {dish} ever,\" said {elder}.",
            ],
        ]),
        new("bedtime", "",
        [
            [
                "It was late, and the [moon|stars] shone in the sky.",
                "That night, it was time to go to bed.",
                "One night, {hero} could not sleep.",
            ],
            [
                "But {hero} <was|were> not tired at all.",
                "\"<I am|We are> not tired,\" said {hero}.",
                "{he} heard {sound} {indoors} and pulled up the blanket.",
            ],
            [
                "{he} counted [sheep|the stars|to ten], but it did not help.",
                "{he} turned left, and {he} turned right.",
                "{he} drank some water and looked out of the window.",
            ],
            [
                "\"Can you tell <me|us> a story?\" {he} asked {elder}.",
                "So {he} went to {elder} on quiet feet.",
                "{elder} came in with a small light.",
            ],
            [
                "{elder} sat down on the bed and told a story about a {animal} and a {color} {toy}.",
                "{elder} told a story about a {animal} who wanted {wish}.",
                "{elder} sang a soft song about the {place}.",
            ],
            [
                "{hero} listened and closed {his} eyes.",
                "\"And then?\" asked {hero}. {his} voice was very soft now.",
                "Outside, the wind sang in the trees.",
            ],
            ["", "{he} held {his} {color} {toy} in {his} arms.", "The bed was warm and soft."],
            [
                "\"Good night,\" whispered {elder}.",
                "Before the story ended, {hero} <was|were> asleep.",
                "{elder} kissed {him} good night and put out the light.",
            ],
            [
                "{he} dreamed of [the {place}|a flying {animal}|a boat on a quiet sea|stars and clouds].",
                "All night, {he} had sweet dreams.",
            ],
        ]),
        new("a messy room", "work can be fun",
        [
            [
                "There were things all over the floor of {his} room.",
                "[One {time2}|One day|Then one {time2}], {elder} looked into the room and said, \"What a mess!\"",
            ],
            [
                "\"Please clean up before you play,\" said {elder}.",
                "There were books {indoors} and toys {indoors2}.",
                "{he} could not even find {his} {color} {toy}.",
            ],
            ["But {hero} wanted to {hobby}.", "\"It is too much work,\" said {hero}.", "{hero} sat down and felt {sad}."],
            [
                "Then {he} made it a game and sang a cleaning song.",
                "Then {fname} came to visit. \"I will help you,\" {fhe} said.",
                "\"Start with one thing,\" said {elder}.",
            ],
            [
                "{he} put the {color2} things in one box and the {color3} things in another.",
                "First {he} picked up the books, and then {he} picked up the toys.",
                "{he} put the {toy} on the shelf and the {toy2} in the box.",
            ],
            ["", "{indoors3}, {he} found {treasure}!", "Under a big blanket, {he} found an old {food} and laughed."],
            ["Soon the room was clean and bright.", "At last, everything was in its place."],
            [
                "\"Well done!\" said {elder}.",
                "{elder} was so surprised that {ehe} clapped {ehis} hands.",
                "\"Now there is room to dance,\" said {elder}.",
            ],
            ["Then {hero} went out to {hobby}.", "After that, {he} had time to {hobby}.", "They danced in the middle of the room."],
        ]),
        new("learning", "you must not give up",
        [
            [
                "{hero} wanted to learn to {skill}.",
                "More than anything, {hero} wanted to {skill}.",
                "All the others could {skill}, but {hero} could not.",
            ],
            [
                "One {weather} {time}, {he} tried it {place.at}.",
                "{he} went to the {place} to try.",
                "\"Today <I|we> will learn it,\" said {hero}.",
            ],
            [
                "But it was hard, and it did not work.",
                "{he} tried once, and {he} tried twice, but {he} failed.",
                "At first, it went all wrong.",
            ],
            ["{fintro} saw it and laughed.", "\"<I|We> can not do it,\" said {hero} and felt {sad}.", "{he} wanted to give up."],
            [
                "\"Every day a little,\" said {elder}. \"That is how I learned it.\"",
                "\"Do not give up,\" said {elder}. \"Try again.\"",
                "\"I can show you how,\" said {fname}.",
            ],
            ["So {hero} tried again and again.", "The next day, {he} came back and tried again.", "Every {time}, {he} practiced a little."],
            ["", "Slowly, it got better.", "After [three days|a week|many tries], it was not so hard anymore."],
            ["Then, one {time}, it worked!", "And then {he} could do it!", "Suddenly, {hero} could {skill}!"],
            ["\"Look! <I am|We are> {skill.ing}!\" called {hero}.", "Everyone {place.at} clapped.", "{elder} clapped and was very proud."],
        ]),
    }.Select(static plot => plot with { AtHome = true }).ToArray();
}
