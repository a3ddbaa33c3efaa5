namespace Tools.StoryGrammar.Plots;

/// <summary>Stories about others: making a friend, sharing, helping, quarrels, presents.</summary>
internal static class FriendshipPlots
{
    internal static IReadOnlyList<Plot> All { get; } =
    [
        new("a new friend", "it is good to say hello",
        [
            [
                "But {hero} <was|were> {sad}, because {he} had no one to play with.",
                "{he} had no friends yet, and {he} felt {sad}.",
                "[One {time2}|One day|Then one {time2}], {hero} wished for a [new|good] friend.",
            ],
            [
                "One {weather} {time2}, {he} went to the {place} [|alone].",
                "So {he} walked to the {place} and sat down.",
                "At the {place}, {he} looked around.",
            ],
            ["There {he} met {fintro}.", "There {he} saw {fintro}, who was sitting alone.", "Soon {fintro} came along the path."],
            [
                "\"Hello,\" said {hero}. \"What is your name?\"",
                "\"Hi! Do you want to play with <me|us>?\" asked {hero}.",
                "{hero} felt shy, but {he} said hello.",
            ],
            [
                "\"I am {friend},\" said the {fkind}. \"I am new here.\"",
                "\"My name is {friend},\" {fhe} said with a smile.",
                "{friend} looked up and smiled. \"I would like to play,\" {fhe} said.",
            ],
            [
                "",
                "{hero} showed {friend} {his} {color} {toy}.",
                "{friend} had a {color} {toy}, and {fhe} let {hero} hold it.",
                "{hero} gave {friend} [a|half of a] {food}.",
            ],
            [
                "They played [hide and seek|tag|games] {place.at} all {time2}.",
                "They ran and jumped and laughed together.",
                "They [built a small house of sticks|looked for shiny stones|told each other funny stories].",
            ],
            ["", "When the sun went down, {friend} had to go home.", "Then it was time to go home."],
            [
                "\"Will you come back tomorrow?\" asked {hero}. \"Yes!\" said {friend}.",
                "\"You are my friend now,\" said {friend}.",
                "\"Let us play again tomorrow,\" said {hero}.",
            ],
        ]),
        new("sharing", "everything is better when you share it",
        [
            [
                "[One {time2}|One day|Then one {time2}], {elder} gave {him} a big {food}.",
                "[One {time2}|One day|Then one {time2}], {hero} had a basket full of {food.some}.",
                "{hero} had the best {food} in the world.",
            ],
            [
                "{he} sat down {place.at} to eat it all alone.",
                "{he} took it to the {place} and sat down on a stone.",
                "{he} did not want to share it with anyone.",
            ],
            ["Then {fintro} came by.", "Soon {he} saw {fintro} under a tree.", "{fintro} was walking past."],
            [
                "\"I am so hungry,\" said {friend}. \"May I have some?\"",
                "{friend} looked hungry and {sad}.",
                "{friend} asked, \"Will you share with me?\"",
            ],
            [
                "\"No, it is <mine|ours>!\" said {hero}.",
                "At first, {hero} did not want to share.",
                "{hero} held it tight and shook {his} <head|heads>.",
            ],
            [
                "{friend} walked away, and {hero} felt {sad2}.",
                "{friend} began to cry. Now {hero} felt bad.",
                "Then {he} saw how thin {friend} was.",
            ],
            [
                "\"Wait!\" called {hero}. \"There is enough for all of us.\"",
                "{he} remembered that {elder} always shared with {him}.",
                "{hero} thought for a moment and called {friend} back.",
            ],
            [
                "{he} gave {friend} the bigger half.",
                "So {hero} and {friend} shared the food, bite by bite.",
                "They sat side by side and ate together.",
            ],
            [
                "\"Thank you,\" said {friend}. \"It tastes better together.\"",
                "It tasted even better than before.",
                "{friend} smiled and gave {hero} {gift}.",
            ],
        ]),
        new("helping an animal", "it is good to help the small ones",
        [
            [
                "One {weather} {time}, {he} heard {sound} {outdoors}.",
                "On the way to the {place}, {he} heard {sound}.",
                "Suddenly, {hero} heard {sound} {place.at}.",
            ],
            [
                "It was a little {animal}. It was [hurt|cold and wet|lost|stuck in a bush].",
                "{he} looked closer and saw a {animal} with a hurt leg.",
                "A small {animal} was lying on the ground.",
            ],
            [
                "\"Oh no! You poor thing,\" said {hero}.",
                "\"Do not be afraid,\" said {hero}. \"<I|We> will help you.\"",
                "{hero} felt sorry for it.",
            ],
            [
                "{he} picked it up very gently and carried it home.",
                "{he} put it in {his} {color} [hat|scarf|basket] and took it home.",
                "{he} ran to get {elder}.",
            ],
            [
                "{elder} brought [some water|warm milk|a soft blanket].",
                "\"We must keep it warm,\" said {elder}.",
                "{elder} knew what to do and made a little bed.",
            ],
            [
                "{hero} fed it [tiny pieces of {food}|crumbs of bread|warm milk] every day.",
                "{he} stayed with the {animal} all night.",
                "{he} sang softly until it fell asleep.",
            ],
            ["", "Day by day, the {animal} grew stronger.", "After a week, it was well again."],
            [
                "Then it was time to let it go.",
                "One {time2}, {hero} took the {animal} back to the {place}.",
                "When it was strong, {hero} opened the door.",
            ],
            [
                "The {animal} [looked back once and went away|ran around {him} and was gone|went home to its mother].",
                "\"Goodbye, little friend,\" said {hero}.",
                "The next day, the {animal} came back to [visit|say thank you].",
            ],
        ]),
        new("a quarrel", "a friend is worth more than a toy",
        [
            ["{hero} and {fname} played together every day.", "{hero} had a good friend, {fintro}.", "{his} best friend was {fintro}."],
            [
                "[One {time2}|One day|Then one {time2}], they both wanted the {color} {toy}.",
                "[One {time2}|One day|Then one {time2}], they found a {color} {toy} {place.at}, and both wanted it.",
            ],
            [
                "\"It is mine!\" cried {friend}. \"No, it is <mine|ours>!\" said {hero}.",
                "They pulled and pulled, and the {toy} broke in two.",
                "They shouted at each other and the {toy} fell [in the mud|into the water].",
            ],
            ["{friend} went home without a word.", "{hero} went home, {sad} and angry.", "Now no one had the {toy}, and both were {sad}."],
            [
                "That night, {hero} could not sleep.",
                "At home, {hero} told {elder} what had happened.",
                "Alone, {hero} did not feel like playing.",
            ],
            [
                "\"A friend is more important than a {toy},\" said {elder}.",
                "\"You can say sorry,\" said {elder} softly.",
                "{he} thought about {friend} and felt sorry.",
            ],
            [
                "The next {time}, {hero} ran to {friend} and said, \"<I am|We are> sorry.\"",
                "The next day, {hero} gave {friend} {gift} and said sorry.",
            ],
            [
                "\"I am sorry too,\" said {friend}.",
                "{friend} hugged {him}. \"I missed you,\" {fhe} said.",
                "\"Let us share it,\" said {friend}.",
            ],
            [
                "Together they fixed the {toy}.",
                "Then they played {place.at} again.",
                "They took turns with the {toy}, and no one was {sad}.",
            ],
        ]),
        new("a present", "the best gifts come from the heart",
        [
            [
                "Soon it was the birthday of {fname}.",
                "It was the birthday of {fname}.",
                "[One {time2}|One day|Then one {time2}], {fname} asked {him} to a party.",
            ],
            [
                "{hero} wanted to give {fhim} a present, but {he} had no money.",
                "\"What can <I|we> give {fhim}?\" thought {hero}.",
                "{hero} did not know what to bring.",
            ],
            [
                "{he} looked {indoors} and {indoors2}, but {he} found nothing.",
                "{he} looked in all the shops, but everything cost too much.",
                "{he} asked {elder} for help.",
            ],
            [
                "\"Make something with your own hands,\" said {elder}.",
                "\"The best gift comes from the heart,\" said {elder}.",
                "Then {he} had an idea.",
            ],
            [
                "All {time}, {hero} worked hard and made {handmade}.",
                "{he} took paper and paint and made {handmade}.",
                "So {he} made {handmade} and painted it {color}.",
            ],
            ["", "{he} tied it with a {color2} ribbon.", "{he} put it in a {color2} bag."],
            [
                "At the party, there were many big presents, and {hero} felt shy.",
                "{he} carried it to the house of {friend}, step by step.",
                "When {friend} opened it, everyone was quiet.",
            ],
            [
                "\"Did you make this?\" asked {friend}. \"It is beautiful!\"",
                "\"This is the best present of all,\" said {friend}.",
                "{friend} jumped for joy and hugged {him}.",
            ],
            [
                "Then they ate {food.some} and danced.",
                "They all sang a song and ate cake.",
                "{friend} kept it next to {fhis} bed for a long time.",
            ],
        ]),
    ];
}
