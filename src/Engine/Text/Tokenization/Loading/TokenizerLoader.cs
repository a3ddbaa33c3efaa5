using Engine.Checkpoints;
using Engine.Checkpoints.Gguf;
using Engine.Checkpoints.Safetensors;

namespace Engine.Text.Tokenization.Loading;

/// <summary>A tokenizer as it lies in files: how it works, and what its special tokens mean.</summary>
internal sealed record LoadedTokenizer(string Path, TokenizerParts Parts, SpecialTokenTable Special);

/// <summary>Recognises what holds a tokenizer and has it read.</summary>
internal static class TokenizerLoader
{
    private const string HuggingFaceKey = "tokenizer.huggingface.json";

    /// <summary>Loads the tokenizer of a checkpoint.</summary>
    /// <exception cref="EngineException">There is none, or it is malformed or not supported.</exception>
    public static LoadedTokenizer Load(Checkpoint checkpoint) => Load(TokenizerFiles.Of(checkpoint));

    /// <summary>Loads the tokenizer of a checkpoint, or null where it has none.</summary>
    /// <exception cref="EngineException">It is malformed or not supported.</exception>
    public static LoadedTokenizer? TryLoad(Checkpoint checkpoint) => Find(TokenizerFiles.Of(checkpoint));

    /// <summary>Loads a tokenizer from a GGUF file, a folder, or a tokenizer file.</summary>
    /// <exception cref="EngineException">There is none, or it is malformed or not supported.</exception>
    public static LoadedTokenizer Load(string path)
    {
        if (Directory.Exists(path))
            return Load(TokenizerFiles.OfFolder(path));
        if (!File.Exists(path))
            throw new EngineException("there is no such file or folder", path);

        string name = System.IO.Path.GetFileName(path), extension = System.IO.Path.GetExtension(path).ToLowerInvariant();
        TokenizerFiles folder = TokenizerFiles.OfFolder(System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!);
        switch (extension)
        {
            case ".gguf":
                using (GgufFile gguf = GgufFile.Open(path))
                    return Load(TokenizerFiles.Of(gguf));
            case ".json":
                return Complete(folder, TokenizerJsonReader.Read(folder.Read(name)!, path), path);
            case ".model":
                return Complete(folder, SentencePieceReader.Read(folder.Read(name)!, path, SpecialTokenTable.ReadAdded(folder)), path);
            case ".bin":
                // Of all formats this one alone stands for itself: what else lies in the folder belongs to other models.
                return new LoadedTokenizer(path, Llama2cReader.Read(folder.Read(name)!, path), SpecialTokenTable.Llama());
            default:
                return Load(folder);
        }
    }

    private static LoadedTokenizer Load(TokenizerFiles files) => Find(files) ?? throw new EngineException(
        $"there is no tokenizer: expected {TokenizerJsonReader.FileName}, {SentencePieceReader.FileName}, {Gpt2FilesReader.VocabularyName} with "
        + $"{Gpt2FilesReader.MergesName}, {Llama2cReader.FileName}, or the key {GgufVocabularyReader.ModelKey}",
        files.Path);

    private static LoadedTokenizer? Find(TokenizerFiles files)
    {
        if (files.Metadata.ContainsKey(GgufVocabularyReader.ModelKey))
        {
            TokenizerParts parts = GgufVocabularyReader.Read(files.Metadata, files.Path);
            return new LoadedTokenizer(files.Path, parts, SpecialTokenTable.OfGguf(files.Metadata, parts, files.Path));
        }
        if (files.Metadata.GetString(HuggingFaceKey, files.Path) is { } embedded)
            return Complete(files, TokenizerJsonReader.Read(System.Text.Encoding.UTF8.GetBytes(embedded), files.Path), files.Path);
        if (files.Read(TokenizerJsonReader.FileName) is { } json)
            return Complete(files, TokenizerJsonReader.Read(json, files.NameOf(TokenizerJsonReader.FileName)), files.Path);
        if (files.Read(SentencePieceReader.FileName) is { } model)
        {
            string modelFile = files.NameOf(SentencePieceReader.FileName);
            return Complete(files, SentencePieceReader.Read(model, modelFile, SpecialTokenTable.ReadAdded(files)), files.Path);
        }
        if (files.ReadJson(Gpt2FilesReader.VocabularyName) is { } vocabulary && files.Read(Gpt2FilesReader.MergesName) is { } merges)
        {
            string mergesFile = files.NameOf(Gpt2FilesReader.MergesName);
            return Complete(files, Gpt2FilesReader.Read(vocabulary, merges, mergesFile, SpecialTokenTable.ReadAdded(files)), files.Path);
        }
        if (files.Read(Llama2cReader.FileName) is { } binary)
        {
            TokenizerParts parts = Llama2cReader.Read(binary, files.NameOf(Llama2cReader.FileName));
            return new LoadedTokenizer(files.Path, parts, SpecialTokenTable.Llama());
        }
        return null;
    }

    private static LoadedTokenizer Complete(TokenizerFiles files, TokenizerParts parts, string path) =>
        new(path, parts, SpecialTokenTable.OfFiles(files, parts));
}
