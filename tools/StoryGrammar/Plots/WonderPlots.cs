namespace Tools.StoryGrammar.Plots;

/// <summary>Stories of courage, treasure, wishes and journeys.</summary>
internal static class WonderPlots
{
    internal static IReadOnlyList<Plot> All { get; } =
    [
        new("being brave", "being brave means trying",
        [
            ["But {hero} <was|were> afraid of {fear}.", "There was one thing {he} did not like. {he} <was|were> afraid of {fear}."],
            [
                "{he} never went near {fear.place}.",
                "The others laughed at {him}.",
                "\"<I am|We are> not brave,\" {he} said to {elder}.",
                "",
            ],
            [
                "\"Being brave means that you are afraid and still try,\" said {elder}.",
                "\"Everyone is afraid of something,\" said {elder}.",
                "{elder} said, \"One day, you will be brave.\"",
            ],
            [
                "One {weather} {time}, {he} heard {sound} from {fear.place}.",
                "[One {time2}|One day|Then one {time2}], {fname} did not come home. {fhe} had gone to {fear.place}.",
                "Then a little {animal} was in trouble at {fear.place}.",
            ],
            ["\"Help! Help!\" someone called.", "\"Someone must help,\" thought {hero}.", "No one else was there."],
            [
                "{his} <legs|legs> were shaking, but {he} took a deep breath.",
                "{hero} <was|were> very afraid, but {he} went on.",
                "{he} took a lantern and went there, step by step.",
            ],
            [
                "There was a little {animal}, and it could not get out.",
                "There {he} saw a {animal} that was lost.",
                "It was only a little {animal}!",
            ],
            [
                "{he} took it in {his} arms and carried it out.",
                "\"Do not cry,\" said {hero}. \"<I am|We are> here.\"",
                "{he} showed it the way out.",
            ],
            [
                "\"You saved it!\" said {elder}. \"How brave!\"",
                "After that, {hero} <was|were> not so afraid of {fear} anymore.",
                "Now everyone said that {hero} <was|were> the bravest of all.",
            ],
        ]),
        new("a treasure", "it is good to be honest",
        [
            [
                "[One {time2}|One day|Then one {time2}], {hero} found {treasure} {outdoors}.",
                "[One {time2}|One day|Then one {time2}], {he} saw something shiny {outdoors}. It was {treasure}!",
                "On the way to the {place}, {he} found {treasure}.",
            ],
            ["\"Now <I am|we are> rich!\" said {hero}.", "{he} wanted to keep it.", "\"How pretty!\" said {hero}."],
            [
                "But then {he} thought that someone had lost it.",
                "\"Who lost it?\" asked {elder}.",
                "{he} thought about it and felt {sad2}.",
            ],
            [
                "{he} asked everyone {place.at}, but it was not theirs.",
                "{he} went from door to door and asked.",
                "{hero} thought about it for a long time.",
            ],
            [
                "At the last house, there was {fintro}. {fhe} was crying.",
                "Then {he} met {fintro}. \"I lost something,\" {fhe} said.",
                "{fintro} came by. \"I have lost something,\" {fhe} said.",
            ],
            [
                "\"Is this yours?\" asked {hero}.",
                "{hero} opened {his} <hand|hands> and showed it to {friend}.",
                "{hero} felt {sad3}, but {he} gave it back.",
            ],
            [
                "\"Yes! It was a gift from my grandmother,\" said {friend}.",
                "{friend} jumped up and hugged {him}.",
                "\"You found it! Thank you!\" cried {friend}.",
            ],
            [
                "{friend} gave {him} {gift} to say thank you.",
                "\"You are very honest,\" said {elder}.",
                "{friend} invited {him} to eat {food.some}.",
            ],
            ["", "Since then, {hero} and {friend} were good friends.", "A friend is better than any treasure."],
        ]),
        new("a wish", "kindness comes back to you",
        [
            [
                "{hero} had one big wish. {he} wanted {wish}.",
                "Every night, {hero} looked at the stars and wished for one thing. {he} wanted {wish}.",
            ],
            [
                "[One {time2}|One day|Then one {time2}], {he} told {fname} about it.",
                "\"How can <I|we> do that?\" {he} asked {elder}.",
                "\"You are too small for that,\" said {fname}.",
            ],
            [
                "\"Ask the old turtle,\" said {elder}. \"She knows everything.\"",
                "\"Go to the top of the hill and ask the moon,\" said {elder}.",
                "\"Follow the river,\" said {elder}. \"There you will find out.\"",
            ],
            [
                "So {hero} packed a {food} and went on a long journey.",
                "The next {time}, {he} took {his} {color} {toy} and went away.",
                "So {he} walked for a whole day.",
            ],
            [
                "On the way, {he} helped a {animal} that was stuck {outdoors}.",
                "On the way, {he} met a hungry {animal} and gave it some food.",
                "{he} came to a wide river, and a {animal} showed {him} the way.",
            ],
            ["", "{he} got tired, but {he} did not stop.", "It got cold, but {he} thought of {his} wish."],
            [
                "At last, {he} <was|were> there.",
                "At the end of the road, {he} saw a {color2} light.",
                "Then, in the night, a star fell from the sky.",
            ],
            [
                "\"You have a good heart,\" said a soft voice. \"Your wish will come true.\"",
                "\"You were kind on your way,\" said a voice. \"So I will help you.\"",
            ],
            ["And so it did.", "And the next {time}, it came true.", "{hero} could not believe it."],
            ["{he} ran home to tell {elder}.", "{fname} was amazed.", "{he} thanked the star and went home."],
        ]),
        new("a boat", "it is good to stay calm",
        [
            [
                "One {weather} {time}, {hero} found an old boat by the water.",
                "{hero} made a little boat out of wood.",
                "{elder} had a small {color} boat.",
            ],
            [
                "\"Let us go on a trip,\" said {hero}.",
                "{he} wanted to see what was on the other side of the water.",
                "\"Where will it take us?\" asked {hero}.",
            ],
            [
                "{fname} came too. They took {food.some} and a {color2} blanket with them.",
                "{fname} brought a {toy}, and {hero} brought {food.some}.",
            ],
            ["The water was quiet, and the sun was warm.", "Fish jumped around the boat.", "The wind pushed the boat along."],
            [
                "But then there was a hole in the boat.",
                "Suddenly, the waves got high.",
                "Then the wind stopped, and the boat did not move.",
            ],
            ["\"We will sink!\" cried {friend}.", "\"What can we do?\" asked {friend}.", "{friend} was afraid and began to cry."],
            [
                "{hero} had an idea. {he} used the {color2} blanket.",
                "{hero} thought hard. \"<I|We> know what to do!\"",
                "A big fish heard them and swam to the boat.",
            ],
            ["It worked, and they came to the shore.", "Slowly, they came to a little island.", "Together they got the boat back to land."],
            [
                "There was [warm sand|a tree full of {food2.some}|a friendly {animal}].",
                "{elder} was waiting for them.",
                "They were wet, but they laughed.",
            ],
        ]),
        new("singing", "it is fine to be a little afraid",
        [
            [
                "{hero} loved music, but {he} <was|were> too shy to sing.",
                "{hero} had a very soft voice.",
                "Every {time}, there was music {place.at}.",
            ],
            [
                "[One {time2}|One day], {fname} told {him} about a big show {place.at}.",
                "\"There is a show tomorrow,\" said {fname}. \"Will you come?\"",
            ],
            [
                "\"<I|We> can not do that,\" said {hero}.",
                "{hero} wanted to take part, but {he} <was|were> afraid.",
                "Everyone wanted to show something, but not {hero}.",
            ],
            [
                "{elder} heard {him} sing {place2.at}.",
                "\"You sing so well,\" said {friend}. \"Sing with me!\"",
                "\"Just look at me when you sing,\" said {elder}.",
            ],
            [
                "That night, {he} practiced a song about a {color} {animal}.",
                "{he} practiced in front of the mirror.",
                "They practiced together until it was dark.",
            ],
            [
                "Then the big day came.",
                "The next {time}, everyone came to the {place}.",
                "{friend} played the drum, and it was {his} turn.",
            ],
            [
                "First, {his} <voice was|voices were> very soft.",
                "{he} looked at {elder} and took a deep breath.",
                "For a moment, {he} forgot the words.",
            ],
            [
                "Then {he} began to sing, and it was beautiful.",
                "{he} sang louder and louder.",
                "{friend} sang along, and then everyone did.",
            ],
            [
                "Everyone clapped and called, \"Again! Again!\"",
                "Even the birds were quiet and listened.",
                "{elder} threw a {flower} to {him}.",
            ],
        ]),
        new("an angry giant", "an angry face can hide a sad heart",
        [
            [
                "[One {time2}|One day|Then one {time2}], a big [bear|giant|goat|goose] stood on the bridge and let no one pass.",
                "Everyone was afraid of the big [giant|bear] {place.at}.",
            ],
            ["\"Go away!\" it shouted at everyone.", "It shouted so loudly that the leaves fell from the trees."],
            ["All the others ran away, but {hero} stayed.", "{hero} hid {outdoors} and watched.", "{elder} said, \"Do not go there.\""],
            [
                "Then {hero} saw that the big one was crying.",
                "\"Why are you so angry?\" asked {hero}.",
                "\"Maybe it is just {sad},\" thought {hero}.",
            ],
            [
                "\"I have a thorn in my foot,\" it said.",
                "\"No one ever plays with me,\" it said.",
                "\"I lost my {color} {toy},\" it said softly.",
            ],
            ["\"<I|We> will help you,\" said {hero}.", "{hero} went closer, step by step.", "{he} held out a {food}."],
            [
                "Very carefully, {he} helped, and soon everything was good.",
                "It did not take long, and the big one smiled for the first time.",
            ],
            ["\"Thank you,\" it said. \"You are small, but you are very brave.\"", "\"Will you be my friend?\" it asked."],
            [
                "Now everyone can cross the bridge.",
                "From then on, they played together {place.at}.",
                "The others came back and could not believe it.",
            ],
        ]),
    ];
}
