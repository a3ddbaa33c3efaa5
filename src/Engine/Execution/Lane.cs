namespace Engine.Execution;

/// <summary>Where a lane is.</summary>
internal enum LaneState
{
    /// <summary>Nobody's.</summary>
    Free,
    /// <summary>At the entry of its depth, not yet decided.</summary>
    Reached,
    /// <summary>Goes through its depth in this step or the next.</summary>
    Enters,
    /// <summary>Has no further depth to go.</summary>
    Through,
}

/// <summary>A row inside the recursion: its place in the loop's residual stream, and how far it is.</summary>
internal struct Lane
{
    public LaneState State;

    public Track Track;
    public Row Row;

    /// <summary>Rows of the track that entered in the same step.</summary>
    public int Together;

    public bool WantsLogits;

    /// <summary>The depth it goes through next, and how many it went through so that it counts.</summary>
    public int Depth, DepthsRun;

    /// <summary>Token choice: the last depth it goes through.</summary>
    public int LastDepth;

    /// <summary>What its depth's output counts.</summary>
    public float Weight;

    public float Auxiliary;

    /// <summary>Expert choice: its depth takes it.</summary>
    public bool Chosen;

    /// <summary>It only goes through depth 0 for the keys and values that others will read.</summary>
    public bool Unseen;
}
