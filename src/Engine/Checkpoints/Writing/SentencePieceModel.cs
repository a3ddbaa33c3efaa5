using System.Buffers.Binary;
using System.Text;

namespace Engine.Checkpoints.Writing;

/// <summary>A piece of a SentencePiece vocabulary.</summary>
/// <param name="Text">With U+2581 for spaces.</param>
/// <param name="Score">Log-probability or minus the merge's rank.</param>
/// <param name="Type">1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; GGUF uses the same numbers.</param>
internal readonly record struct SentencePiece(string Text, float Score, int Type);

/// <summary>The few fields of SentencePiece's <c>ModelProto</c> that GGUF keeps. Source: google/sentencepiece,
/// sentencepiece_model.proto.</summary>
internal sealed class SentencePieceModel
{
    // Field numbers of ModelProto and of the messages in it.
    private const int PiecesField = 1, TrainerField = 2, NormalizerField = 3;
    private const int PieceText = 1, PieceScore = 2, PieceType = 3, TrainerUnknownId = 40, NormalizerDummyPrefix = 3;

    public List<SentencePiece> Pieces { get; } = [];

    public int UnknownId { get; private set; }

    public bool AddDummyPrefix { get; private set; } = true;

    /// <summary>Parses a model.</summary>
    /// <exception cref="EngineException">The bytes are not a protocol buffer, or there are no pieces.</exception>
    public static SentencePieceModel Parse(byte[] model, string path)
    {
        var parsed = new SentencePieceModel();
        try
        {
            var reader = new Fields(model);
            while (reader.Next())
            {
                switch (reader.Number)
                {
                    case PiecesField: parsed.Pieces.Add(ReadPiece(new Fields(reader.Bytes))); break;
                    case TrainerField: parsed.ReadTrainer(new Fields(reader.Bytes)); break;
                    case NormalizerField: parsed.ReadNormalizer(new Fields(reader.Bytes)); break;
                    default: break;
                }
            }
        }
        catch (Exception exception) when (exception is FormatException or ArgumentException)
        {
            throw new EngineException($"the file is not a SentencePiece model: {exception.Message}", path, inner: exception);
        }
        return parsed.Pieces.Count > 0 ? parsed : throw new EngineException("the file has no pieces", path);
    }

    private static SentencePiece ReadPiece(Fields fields)
    {
        var piece = new SentencePiece("", 0, TokenizerMetadata.Normal);
        while (fields.Next())
        {
            piece = fields.Number switch
            {
                PieceText => piece with { Text = Encoding.UTF8.GetString(fields.Bytes) },
                PieceScore => piece with { Score = BitConverter.UInt32BitsToSingle((uint)fields.Value) },
                PieceType => piece with { Type = (int)fields.Value },
                _ => piece,
            };
        }
        return piece;
    }

    private void ReadTrainer(Fields fields)
    {
        while (fields.Next())
        {
            if (fields.Number == TrainerUnknownId)
                UnknownId = (int)fields.Value;
        }
    }

    private void ReadNormalizer(Fields fields)
    {
        while (fields.Next())
        {
            if (fields.Number == NormalizerDummyPrefix)
                AddDummyPrefix = fields.Value != 0;
        }
    }

    /// <summary>The fields of one message.</summary>
    private ref struct Fields(ReadOnlySpan<byte> message)
    {
        private ReadOnlySpan<byte> rest = message;

        public int Number { get; private set; }

        public ulong Value { get; private set; }

        public ReadOnlySpan<byte> Bytes { get; private set; }

        public bool Next()
        {
            if (rest.IsEmpty)
                return false;
            ulong tag = Varint();
            Number = (int)(tag >> 3);
            switch (tag & 7)
            {
                case 0:
                    Value = Varint();
                    break;
                case 1:
                    Value = BinaryPrimitives.ReadUInt64LittleEndian(Take(8));
                    break;
                case 2:
                    Bytes = Take(Varint());
                    break;
                case 5:
                    Value = BinaryPrimitives.ReadUInt32LittleEndian(Take(4));
                    break;
                default:
                    throw new FormatException($"unknown wire type {tag & 7}");
            }
            return true;
        }

        private ulong Varint()
        {
            ulong value = 0;
            for (int shift = 0; shift < 64; shift += 7)
            {
                byte next = Take(1)[0];
                value |= (ulong)(next & 127) << shift;
                if (next < 128)
                    return value;
            }
            throw new FormatException("a number has more than 64 bits");
        }

        private ReadOnlySpan<byte> Take(ulong count)
        {
            if (count > (ulong)rest.Length)
                throw new FormatException("a field runs past the end");
            ReadOnlySpan<byte> taken = rest[..(int)count];
            rest = rest[(int)count..];
            return taken;
        }
    }
}
