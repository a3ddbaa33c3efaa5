using Engine.Checkpoints;
using Engine.Checkpoints.Writing;
using Engine.Tests.Plans.Oracle;

namespace Engine.Tests.Compression;

/// <summary>Tiny models as Hugging Face folders.</summary>
internal static class ModelFolder
{
    /// <summary>Writes a model, with a file that is no weight beside it.</summary>
    /// <returns>The folder.</returns>
    public static string Write(TemporaryFolder folder, TinyModel model, DType dtype = DType.BF16)
    {
        using MemoryCheckpoint checkpoint = model.ToCheckpoint();
        string path = folder.File("model");
        SafetensorsWriter.WriteFolder(path, [.. checkpoint.TensorNames.Select(name => TensorSource.Convert(checkpoint[name], dtype))]);
        File.WriteAllText(Path.Combine(path, "config.json"), checkpoint.Config.ToJsonString());
        File.WriteAllText(Path.Combine(path, "generation_config.json"), "{}");
        return path;
    }

    /// <summary>Random sequences of a model's tokens.</summary>
    public static int[][] Text(TinyModel model, int sequences = 6, int length = 40) =>
        [.. Enumerable.Range(0, sequences).Select(_ => model.Tokens(length))];

    /// <summary>Name and content of all files of a folder.</summary>
    public static Dictionary<string, string> Content(string folder) => Directory.GetFiles(folder).ToDictionary(
        static file => Path.GetFileName(file), static file => Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(File.ReadAllBytes(file))));
}
