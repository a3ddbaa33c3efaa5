namespace Engine.Plans.Readers;

/// <summary>Both ends of the model: how many tokens there are, and which tensor makes logits.</summary>
internal static class Vocabulary
{
    /// <summary><c>vocab_size</c>, or the rows of the token table where the key is absent.</summary>
    public static int Size(ConfigReader config, TensorCatalog tensors, string tokenTable) =>
        config.CountOrNull("vocab_size")
        ?? (tensors.ShapeOf(tokenTable) is [long rows and > 0 and <= int.MaxValue, _]
            ? (int)rows
            : throw config.Error("vocab_size", "the key is missing"));

    /// <summary>
    /// <c>lm_head</c>, or the token table where <c>tie_word_embeddings</c> says so. Families differ in the default of that key, so where it
    /// is absent
    /// the file decides: a head that was stored is used.
    /// </summary>
    public static LinearPlan Head(ConfigReader config, TensorCatalog tensors, string tokenTable, int vocabulary, int hidden)
    {
        const string head = "lm_head.weight";
        bool tied = config.FlagOrNull("tie_word_embeddings") ?? !tensors.Has(head);
        WeightRef weight = tensors.Table(tied ? tokenTable : head, vocabulary, hidden);
        if (tied && tensors.Has(head))
        {
            tensors.Table(head, vocabulary, hidden); // a copy of the token table that nothing reads
        }
        return new LinearPlan(
            hidden, [new LinearPart(vocabulary, weight, tensors.VectorOrNull("lm_head.bias", vocabulary, config.Flag("lm_head_bias", false)))]);
    }

    /// <summary><c>lm_head</c> where the file has one, else the token table, whatever <c>tie_word_embeddings</c> says.</summary>
    public static LinearPlan StoredHead(TensorCatalog tensors, string tokenTable, int vocabulary, int hidden) =>
        new(hidden, [new LinearPart(vocabulary, tensors.Table(tensors.Has("lm_head.weight") ? "lm_head.weight" : tokenTable, vocabulary, hidden))]);
}
