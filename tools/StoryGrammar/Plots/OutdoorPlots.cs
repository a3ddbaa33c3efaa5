namespace Tools.StoryGrammar.Plots;

/// <summary>Stories outside: storm, building, race, picnic, garden, snow, getting lost.</summary>
internal static class OutdoorPlots
{
    internal static IReadOnlyList<Plot> All { get; } =
    [
        new("a storm", "a storm does not last forever",
        [
            [
                "[One {time2}|One day|Then one {time2}], {hero} <was|were> playing {place.at}.",
                "[One {time2}|One day|Then one {time2}], {he} went out to {hobby}.",
            ],
            [
                "Suddenly, dark clouds came, and the wind began to blow.",
                "The sky turned gray, and it began to rain.",
                "Then there was a big storm with thunder.",
            ],
            [
                "{hero} <was|were> [afraid|cold and wet|far from home].",
                "\"<I|We> want to go home,\" said {hero}.",
                "The wind took {his} {color} {toy} and blew it away.",
            ],
            [
                "{he} ran and ran until {he} saw a [small cave|little hut|big tree|barn].",
                "{he} looked for a dry place and found a [cave|hut|barn].",
            ],
            [
                "Inside, there was {fintro}.",
                "There {he} met {fintro}, who was hiding from the rain too.",
                "\"Come in!\" called a voice. It was {fintro}.",
            ],
            [
                "\"Are you afraid of the storm too?\" asked {friend}.",
                "\"Sit down next to me,\" said {friend}. \"It is warm here.\"",
                "{friend} was shaking. \"I do not like thunder,\" {fhe} said.",
            ],
            [
                "They sat close together and sang songs.",
                "They shared a {food} and told stories.",
                "{hero} held the hand of {friend}, and they counted to ten after each flash.",
            ],
            ["At last, the rain stopped.", "After a while, the storm went away.", "Then it was quiet, and the sun came out."],
            [
                "There was a rainbow over the {place}.",
                "Together they walked home through the puddles.",
                "\"Look! A rainbow!\" said {friend}.",
                "{elder} came running and was glad to find {him}.",
            ],
        ]),
        new("building", "it is good to work together",
        [
            [
                "One {weather} {time}, {hero} had an idea.",
                "[One {time2}|One day|Then one {time2}], there was nothing to do.",
                "\"What can we do today?\" {he} asked {fname}.",
            ],
            ["{he} wanted to build a {building}.", "\"Let us build a {building}!\" said {hero}."],
            ["{fname} came to help.", "{hero} asked {fname} to help.", "{fintro} heard it and wanted to help."],
            [
                "They needed {building.of}, so they looked everywhere.",
                "They used {building.of}.",
                "They carried everything to the {place}.",
            ],
            ["They worked all {time}.", "{hero} carried the heavy things, and {friend} held them.", "It was hard work, but it was fun."],
            [
                "But then the wind came, and everything fell down.",
                "Crash! One side fell down.",
                "But the {building} was not strong, and it broke.",
            ],
            ["\"Oh no!\" cried {friend}. \"All our work is gone.\"", "{hero} felt {sad}.", "They looked at it and were {sad}."],
            [
                "\"We can do it again, and better,\" said {hero}.",
                "{elder} came and showed them how to make it strong.",
                "They did not give up and started again.",
            ],
            ["This time, it was strong.", "In the end, they had the best {building} {place.at}.", "They put a {color} flag on top."],
            ["", "They sat down and ate {food.some}.", "Everyone came to see the {building}."],
        ]),
        new("a race", "helping is better than winning",
        [
            [
                "[One {time2}|One day|Then one {time2}], there was a big race {place.at}.",
                "\"I am faster than you,\" said {fname}. \"Let us race!\"",
                "Every year, there was a race from the {place} to the {place2}.",
            ],
            ["{hero} wanted to win.", "{hero} <was|were> not very fast, but {he} wanted to try.", "\"<I|We> can do it,\" said {hero}."],
            [
                "\"One, two, three, go!\" called {elder}.",
                "A bell rang, and the race began.",
                "Everyone stood in a line, and then they ran.",
            ],
            ["{hero} ran as fast as {he} could.", "{fname} was very fast and was soon ahead.", "They ran up the hill and over the bridge."],
            [
                "Then {friend} fell down and hurt {fhis} foot.",
                "Then {hero} saw {fname} lying on the ground.",
                "Suddenly, {friend} tripped over a stone and cried.",
            ],
            [
                "{hero} wanted to win, but {he} stopped.",
                "{hero} looked at the finish, and then {he} looked at {friend}.",
                "{hero} did not think twice and stopped.",
            ],
            [
                "\"Are you hurt?\" asked {hero}. \"<I|We> will help you.\"",
                "{he} helped {friend} to stand up.",
                "{he} tied a {color} scarf around the foot.",
            ],
            ["They walked to the finish together, hand in hand.", "Slowly, they went on together."],
            [
                "They came in last, but everyone clapped for them.",
                "\"You are the real winners,\" said {elder}.",
                "They did not win, but {elder} gave them {gift}.",
            ],
        ]),
        new("a picnic", "there is always enough to share",
        [
            [
                "One {weather} {time}, {hero} and {elder} had a picnic {place.at}.",
                "\"It is such a nice {time},\" said {elder}. \"Let us have a picnic!\"",
                "{hero} wanted to have a picnic with {fname}.",
            ],
            ["They packed {food.some} and {food2.some} in a {color} basket.", "{he} took a basket with {food.some} and a {color} blanket."],
            [
                "They sat down on the grass under a tree.",
                "They walked to the {place} and found a good spot.",
                "The birds sang, and the grass was soft.",
            ],
            [
                "But when they opened the basket, the {food.some} were gone!",
                "Then a little {animal} came and took a {food}.",
                "Suddenly, there was {sound} {outdoors}.",
            ],
            ["\"Who ate our food?\" asked {hero}.", "{hero} <was|were> very surprised.", "\"What was that?\" asked {hero}."],
            ["They looked around and saw a {animal} with crumbs on its nose.", "{he} saw small tracks in the grass and followed them."],
            [
                "At the end, there was a {animal} with its hungry family.",
                "The {animal} looked at them with big eyes.",
                "\"It is only a hungry {animal},\" said {hero}.",
            ],
            [
                "{hero} laughed and gave it another {food}.",
                "\"You can eat with us,\" said {hero}.",
                "They shared the rest with the {animal}.",
            ],
            [
                "They all ate together in the sun.",
                "After that, they lay on the blanket and looked at the clouds.",
                "They played {place.at} until it was time to go home.",
            ],
        ]),
        new("a garden", "good things take time",
        [
            [
                "One spring {time}, {elder} gave {him} a small seed.",
                "[One {time2}|One day|Then one {time2}], {hero} found a seed {outdoors}.",
                "{hero} wanted to grow a {vegetable}.",
            ],
            [
                "{he} made a hole in the ground and put the seed in.",
                "{he} planted it in the garden.",
                "\"Put it in the ground and wait,\" said {elder}.",
            ],
            ["Every day, {he} gave it water.", "{he} watered it every morning and sang to it."],
            ["But nothing happened.", "Days passed, and there was nothing to see.", "\"Why does it not grow?\" asked {hero}."],
            [
                "\"Good things take time,\" said {elder}.",
                "\"You must be patient,\" said {elder}.",
                "{hero} felt {sad}, but {he} did not give up.",
            ],
            [
                "Then one {weather} {time}, there was a tiny green leaf.",
                "At last, a small green plant came up.",
                "[One {time2}|One day|Then one {time2}], {hero} saw something green and jumped for joy.",
            ],
            [
                "",
                "It grew and grew, higher than {hero}.",
                "A {animal} wanted to eat it, but {hero} built a little fence.",
                "Then {fname} came and helped {him} with the weeds.",
            ],
            [
                "In summer, there was a big {vegetable}.",
                "Soon there were {vegetable.some} everywhere.",
                "After many weeks, the {vegetable.some} were ready.",
            ],
            [
                "{he} gave {vegetable.some} to [all {his} friends|{friend}|{elder}].",
                "They made soup and ate it together.",
                "\"<I|We> grew it <myself|ourselves>!\" said {hero}.",
            ],
        ]),
        new("a snowy day", "it is good to help each other",
        [
            [
                "One cold day, everything was white with snow.",
                "The next {time}, {hero} looked out of the window and saw snow.",
                "It was winter, and it had snowed all night.",
            ],
            [
                "\"Snow! Snow!\" called {hero} and ran outside.",
                "{he} put on a {color} hat and ran out.",
                "{elder} gave {him} a warm {color} scarf.",
            ],
            ["{he} met {fname} {place.at}.", "{fname} was already there.", "Soon {fintro} came to play."],
            [
                "They made a big snowman with a carrot for a nose.",
                "They rolled in the snow and threw snowballs.",
                "They slid down the hill again and again.",
            ],
            [
                "But then {friend} lost {fhis} {color2} {toy} in the snow.",
                "Then {friend} began to shake. {fhe} had no warm hat.",
                "Then they heard {sound} under the snow.",
            ],
            [
                "They dug and dug with their hands.",
                "{hero} gave {friend} {his} own hat.",
                "\"Do not worry,\" said {hero}. \"<I|We> will help.\"",
            ],
            [
                "It was a little {animal} that was looking for food.",
                "\"Thank you,\" said {friend}. \"You are so kind.\"",
                "At last, everything was good again.",
            ],
            [
                "Then they went inside and drank hot milk.",
                "At home, {elder} made hot soup for them.",
                "They sat by the fire until they were warm.",
            ],
        ]),
        new("lost in the woods", "it is wise to listen",
        [
            [
                "[One {time2}|One day|Then one {time2}], {hero} went into the woods to look for berries.",
                "[One {time2}|One day|Then one {time2}], {hero} followed a {color} butterfly into the woods.",
                "\"Do not go too far,\" said {elder}, but {hero} did not listen.",
            ],
            [
                "{he} walked and walked, and then {he} did not know the way.",
                "After a while, all the trees looked the same.",
                "Soon {he} could not see the path anymore.",
            ],
            ["\"<I am|We are> lost,\" said {hero}.", "{hero} felt {sad} and sat down on a log.", "It got dark, and {he} heard {sound}."],
            [
                "Then {he} saw {fintro}.",
                "A small voice said, \"Can I help you?\" It was {fintro}.",
                "{fintro} came out from behind a tree.",
            ],
            [
                "\"I know every tree here,\" said {friend}.",
                "\"Follow me,\" said {friend}. \"I know the way.\"",
                "\"Look at the stars,\" said {friend}. \"They show the way.\"",
            ],
            [
                "They walked past [a tall rock|a little stream|an old tree] and over a bridge.",
                "{hero} stayed close to {friend}.",
                "{friend} went first, and {hero} followed.",
            ],
            [
                "",
                "On the way, they ate berries and sang a song.",
                "{friend} told {him} a funny story, and {hero} <was|were> not afraid anymore.",
            ],
            ["At last, {he} saw the light of {his} home.", "Soon they came out of the woods.", "There was the path again!"],
            [
                "{elder} ran to {him} and hugged {him}.",
                "\"Thank you, {friend},\" said {hero}. \"Come and visit <me|us>.\"",
                "{elder} thanked {friend} and gave {fhim} {gift}.",
            ],
        ]),
    ];
}
