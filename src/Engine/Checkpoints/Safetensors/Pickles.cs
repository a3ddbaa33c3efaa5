namespace Engine.Checkpoints.Safetensors;

/// <summary>PyTorch's own files (<c>pytorch_model.bin</c>, .pt, .pth): pickles are programs, and are not read.</summary>
internal static class Pickles
{
    private const uint ZipMagic = 0x04034b50;

    private const byte Protocol = 0x80;

    /// <summary>Files of this name may be pickles.</summary>
    public static bool IsName(string fileName) => Path.GetExtension(fileName).ToLowerInvariant() is ".bin" or ".pt" or ".pth" or ".ckpt";

    /// <summary>
    /// Files that begin with these four bytes, little-endian, are zips of pickles (torch.save) or a bare one: PROTO, a small number, and another instruction, where
    /// llama2.c's width of a model has zeros.
    /// </summary>
    public static bool BeginsAs(uint first) => first == ZipMagic || ((byte)first == Protocol && (byte)(first >> 8) is >= 1 and <= 5 && first >> 16 != 0);

    /// <summary>What to do instead of reading it.</summary>
    public static string Reason(string fileName) =>
        $"{fileName} is a pickle of PyTorch, a program that is not run: load it in Python and save its state_dict with safetensors.torch.save_file as {HfFolder.WeightsName}";
}
