namespace Tools.StoryGrammar;

/// <summary>The words that stories are made of.</summary>
public static class Lexicon
{
    /// <summary>Names of girls.</summary>
    public static IReadOnlyList<string> GirlNames { get; } =
    [
        "Lily", "Mia", "Anna", "Emma", "Sara", "Zoe", "Ella", "Lucy", "Rose", "Amy", "Nora", "Ivy", "Ruby", "Clara", "Alice", "Maya",
        "Molly", "Grace", "Hannah", "Daisy", "Sue", "Mary",
    ];

    /// <summary>Names of boys.</summary>
    public static IReadOnlyList<string> BoyNames { get; } =
    [
        "Tom", "Ben", "Sam", "Max", "Leo", "Jack", "Tim", "Finn", "Noah", "Oscar", "Luke", "Adam", "Henry", "Peter", "Billy", "John",
        "Dan", "Joe", "Theo", "Hugo", "Paul", "Felix",
    ];

    /// <summary>Names of animals and other creatures; any of them may be "he" or "she".</summary>
    public static IReadOnlyList<string> CreatureNames { get; } =
    [
        "Pip", "Biscuit", "Coco", "Momo", "Button", "Pepper", "Sunny", "Scout", "Bean", "Pickle", "Fern", "Mimi", "Clover", "Teddy",
        "Hazel", "Fluffy", "Rusty", "Snowy", "Tiny", "Lulu",
    ];

    /// <summary>Species that a hero or a friend may have.</summary>
    public static IReadOnlyList<string> Creatures { get; } =
    [
        "dog", "cat", "rabbit", "mouse", "bear", "fox", "squirrel", "hedgehog", "duck", "frog", "turtle", "pig", "lamb", "pony", "owl",
        "kitten", "puppy",
        "monkey", "elephant", "lion", "penguin", "beaver", "badger", "goat", "otter", "robot", "dragon", "hen", "raccoon", "deer",
    ];

    /// <summary>People that a story may be about, by gender.</summary>
    public static IReadOnlyList<string> Women { get; } =
        ["queen", "princess", "farmer", "baker", "girl", "knight", "painter", "sailor", "witch", "woman", "teacher", "doctor"];

    /// <inheritdoc cref="Women"/>
    public static IReadOnlyList<string> Men { get; } =
        ["king", "prince", "farmer", "baker", "boy", "knight", "painter", "sailor", "wizard", "man", "teacher", "doctor"];

    /// <summary>Adjectives of a hero without a name.</summary>
    public static IReadOnlyList<string> CreatureAdjectives { get; } =
        ["little", "small", "brown", "gray", "young", "white", "happy", "lazy", "hungry", "black", "tiny", "big", "old"];

    /// <summary>Adjectives of a person without a name.</summary>
    public static IReadOnlyList<string> PersonAdjectives { get; } =
        ["young", "old", "tall", "happy", "lazy", "hungry", "poor", "kind", "little", "wise"];

    /// <summary>
    /// What <c>{pool}</c> draws from on its first use in a story; it keeps that value to the story's end. <c>{pool2}</c> draws another one.
    /// A value <c>"word;key=text"</c> also answers <c>{pool.key}</c>.
    /// </summary>
    public static IReadOnlyDictionary<string, string[]> Pools { get; } = new Dictionary<string, string[]>(StringComparer.Ordinal)
    {
        ["friendadjective"] = ["", "little", "small", "friendly", "shy", "kind", "clever", "cheerful", "quiet", "funny", "young"],
        ["trait"] =
        [
            "kind", "curious", "brave", "clever", "cheerful", "gentle", "shy", "careful", "friendly", "helpful", "quiet", "patient",
            "funny", "proud", "stubborn",
        ],
        ["home"] =
        [
            "in a small village", "in a little house by the sea", "on a farm", "near a big forest", "in a tall house in the city",
            "by a quiet river",
            "on top of a green hill", "in a cozy cottage", "at the edge of the woods", "in a warm valley", "beside a blue lake",
            "under an old oak tree",
            "in a little town", "on a small island", "near the mountains",
        ],
        ["hobby"] =
        [
            "play outside", "sing songs", "look at the clouds", "run in the grass", "draw pictures", "climb trees", "tell stories",
            "jump in puddles",
            "count the stars", "play in the garden", "dance", "look for shiny stones", "swim in the pond", "help others", "explore",
            "collect leaves",
            "play with a ball", "watch the birds", "build things", "ask questions",
        ],
        ["place"] =
        [
            "park;at=in the park", "forest;at=in the forest", "garden;at=in the garden", "beach;at=at the beach", "river;at=by the river",
            "lake;at=by the lake", "meadow;at=in the meadow", "hill;at=on the hill", "pond;at=by the pond", "market;at=at the market",
            "old mill;at=by the old mill", "playground;at=on the playground", "field;at=in the field", "bridge;at=near the bridge",
            "woods;at=in the woods",
        ],
        ["color"] = ["red", "blue", "green", "yellow", "purple", "orange", "white", "pink", "silver", "golden", "brown"],
        ["toy"] =
        [
            "ball", "kite", "drum", "boat", "doll", "hat", "scarf", "book", "train", "ring", "bell", "whistle", "blanket", "basket",
            "key", "cup", "button",
            "car", "umbrella", "puppet", "top", "lantern", "bag", "watch",
        ],
        ["food"] =
        [
            "apple;some=apples", "cookie;some=cookies", "pear;some=pears", "cake;some=cakes", "sandwich;some=sandwiches",
            "carrot;some=carrots",
            "muffin;some=muffins", "peach;some=peaches", "pancake;some=pancakes", "plum;some=plums", "orange;some=oranges",
            "pie;some=pies", "banana;some=bananas", "bun;some=buns",
        ],
        ["hiding"] =
        [
            "under the bed", "behind the door", "in the kitchen", "under the table", "in the long grass", "behind the big tree",
            "under a bush", "in the old box",
            "behind the chair", "near the gate", "by the well", "under the stairs", "in the barn", "on the roof", "beside the fence",
            "in the mud",
        ],
        ["indoors"] =
        [
            "under the bed", "behind the door", "in the kitchen", "under the table", "in the old box", "behind the chair",
            "under the stairs", "in the corner",
            "behind the curtain", "on the shelf",
        ],
        ["outdoors"] =
        [
            "in the long grass", "behind the big tree", "under a bush", "near the gate", "by the well", "in the barn",
            "beside the fence", "in the mud",
            "between the rocks", "under the leaves",
        ],
        ["handmade"] =
        [
            "a wooden box", "a warm scarf", "a paper star", "a picture of the sea", "a small drum", "a music box", "a little boat",
            "a string of shells",
            "a birdhouse", "a soft pillow", "a clay cup", "a paper bird",
        ],
        ["weather"] = ["sunny", "cold", "windy", "warm", "rainy", "cloudy", "bright", "foggy", "quiet", "hot", "cool"],
        ["time"] = ["morning", "afternoon", "day", "evening"],
        ["flower"] = ["rose", "tulip", "daisy", "sunflower", "bluebell", "poppy", "lily"],
        ["vegetable"] =
        [
            "pumpkin;some=pumpkins", "carrot;some=carrots", "tomato;some=tomatoes", "bean;some=beans", "potato;some=potatoes",
            "pea;some=peas",
            "onion;some=onions", "melon;some=melons", "sunflower;some=sunflowers", "strawberry;some=strawberries",
        ],
        ["animal"] =
        [
            "bird", "rabbit", "lamb", "kitten", "duckling", "mouse", "chick", "squirrel", "baby deer", "puppy", "hedgehog", "baby fox",
            "baby owl",
        ],
        ["building"] =
        [
            "treehouse;of=wood and rope", "sandcastle;of=wet sand", "raft;of=old logs", "tower;of=wooden blocks",
            "little house;of=sticks and leaves",
            "bridge;of=flat stones", "fort;of=pillows and blankets", "snowman;of=clean white snow", "birdhouse;of=thin boards",
            "swing;of=rope and wood",
            "kite;of=paper and string", "cart;of=boxes and wheels",
        ],
        ["dish"] =
        [
            "soup;a=some soup;with=carrots and beans", "bread;a=some bread;with=flour and salt", "pie;a=a pie;with=apples and sugar",
            "cake;a=a cake;with=eggs and honey",
            "pizza;a=a pizza;with=cheese and tomatoes", "salad;a=a salad;with=leaves and nuts", "jam;a=some jam;with=berries and sugar",
            "stew;a=a stew;with=potatoes and onions",
            "porridge;a=some porridge;with=oats and milk", "pudding;a=a pudding;with=milk and rice",
        ],
        ["skill"] =
        [
            "swim;ing=swimming", "ride a bike;ing=riding", "whistle;ing=whistling", "skate;ing=skating", "read;ing=reading",
            "paint;ing=painting",
            "play the drum;ing=drumming", "dance;ing=dancing", "jump rope;ing=jumping", "juggle;ing=juggling", "sing;ing=singing",
            "climb;ing=climbing",
            "fly a kite;ing=flying the kite", "sew;ing=sewing",
        ],
        ["fear"] =
        [
            "the dark;place=the dark cave", "deep water;place=the deep lake", "high places;place=the tall tower",
            "loud noises;place=the noisy mill",
            "the old bridge;place=the old bridge", "the big woods;place=the big woods", "the attic;place=the dusty attic",
            "the dark cellar;place=the dark cellar",
        ],
        ["wish"] =
        [
            "to see the sea", "to fly like a bird", "to have a true friend", "to touch a star", "to find a treasure", "to see snow",
            "to sing like a bird",
            "to travel far away", "to be brave", "to make everyone smile", "to ride in a boat", "to grow tall",
        ],
        ["gift"] =
        [
            "a wooden box", "a warm scarf", "a jar of honey", "a little bell", "a paper star", "a basket of fruit",
            "a picture of the sea", "a round stone",
            "a soft pillow", "a bunch of flowers", "a music box", "a small drum", "a blue feather", "a cup of tea",
        ],
        ["feeling"] = ["happy", "proud", "glad", "warm inside", "full of joy", "very happy", "so proud"],
        ["sad"] = ["sad", "worried", "upset", "lonely", "very sad", "unhappy"],
        ["sound"] = ["a soft sound", "a strange noise", "a tiny voice", "a loud cry", "a sad little sound", "a rustle", "a knock"],
        ["mess"] = ["a vase", "a plate", "a lamp", "a jar", "a cup", "a pot", "a flowerpot", "a bowl"],
        ["treasure"] =
        [
            "a gold coin", "a silver key", "a shiny ring", "an old map", "a small purse", "a glass marble", "a bag of coins",
            "a golden bell", "a pearl", "a locket",
        ],
    };
}
