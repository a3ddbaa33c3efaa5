using System.Buffers.Binary;
using System.Text;
using System.Text.Json.Nodes;

namespace Engine.Tests.Checkpoints.Coded;

/// <summary>A stored tensor, as the file has it.</summary>
/// <param name="Name">Its full name, or what is behind the module's name and a dot.</param>
/// <param name="Type">safetensors' name of its type.</param>
/// <param name="Shape">Dimensions, outermost first.</param>
/// <param name="Bytes">Its bytes.</param>
internal sealed record RawTensor(string Name, string Type, long[] Shape, byte[] Bytes);

/// <summary>
/// Writes a Hugging Face folder byte by byte, sharing no code with the engine. The header is not padded, and its length is odd, so that no tensor is aligned.
/// </summary>
internal static class PackedFolder
{
    /// <summary>Writes <c>config.json</c> and <c>model.safetensors</c>.</summary>
    public static void Write(TemporaryFolder folder, JsonObject config, IReadOnlyList<RawTensor> tensors)
    {
        folder.Write("config.json", config.ToJsonString());
        folder.Write("model.safetensors", Container(tensors));
    }

    private static byte[] Container(IReadOnlyList<RawTensor> tensors)
    {
        var header = new JsonObject();
        long end = 0;
        foreach (RawTensor tensor in tensors)
        {
            header[tensor.Name] = new JsonObject
            {
                ["dtype"] = tensor.Type,
                ["shape"] = new JsonArray([.. tensor.Shape.Select(static dimension => JsonValue.Create(dimension))]),
                ["data_offsets"] = new JsonArray(end, end + tensor.Bytes.Length),
            };
            end += tensor.Bytes.Length;
        }
        byte[] json = Encoding.UTF8.GetBytes(header.ToJsonString());
        if (json.Length % 2 == 0)
        {
            json = [.. json, (byte)' '];
        }
        byte[] length = new byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(length, (ulong)json.Length);
        return [.. length, .. json, .. tensors.SelectMany(static tensor => tensor.Bytes)];
    }
}
