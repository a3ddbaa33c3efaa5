namespace Engine.Plans.Readers;

/// <summary>Sections whose every key is known: a key that nobody here knows may change the numbers, and is refused.</summary>
internal static class KeyTable
{
    /// <summary>Refuses a section that has a value under a key that is not listed.</summary>
    /// <param name="section">The section.</param>
    /// <param name="known">Keys that are obeyed, and keys that play no part in inference.</param>
    /// <exception cref="EngineException">There is another.</exception>
    public static void Require(ConfigReader section, params ReadOnlySpan<string> known)
    {
        foreach (string key in section.Keys)
        {
            if (section.Has(key) && !known.Contains(key))
            {
                throw section.Error(key, $"the key is not known, and may change what is computed; found {ConfigReader.Show(section.Node(key))}");
            }
        }
    }
}
