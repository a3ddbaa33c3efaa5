using System.Collections.Immutable;
using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Nodes;
using Engine.Checkpoints;
using Engine.Cpu;
using Engine.Cpu.Matmul;
using Engine.Plans;

namespace Engine.Tests.Cpu.Matmul;

/// <summary>Which numbers a random scale is one of.</summary>
public enum ScaleKind
{
    BF16,
    F16,
    F32,
    Power,
    /// <summary>8-bit floats times one factor.</summary>
    SmallFloat,
}

/// <summary>Which zero points a random matrix has.</summary>
public enum ZeroKind
{
    /// <summary>2^(bits − 1) everywhere.</summary>
    Symmetric,
    /// <summary>0 everywhere, as floats have it.</summary>
    None,
    /// <summary>One that is neither.</summary>
    Constant,
    /// <summary>Any code, and one more, per row and group.</summary>
    Groups,
}

/// <summary>A kind of matrix with codes and scales apart.</summary>
/// <param name="Numbers">What codes stand for.</param>
/// <param name="Bits">Bits of a code.</param>
/// <param name="Group">Columns of a scale; 0 for all of them.</param>
/// <param name="Zero">Zero points.</param>
/// <param name="Scale">Scales.</param>
/// <param name="Ordered">Columns are in an order of their own.</param>
/// <param name="MostBits">Bits a weight may take in memory, with [64, 1024].</param>
public sealed record CodedCase(
    CodeNumbers Numbers, int Bits, int Group, ZeroKind Zero, ScaleKind Scale, bool Ordered = false, double MostBits = 32.1);

/// <summary>Random matrices with codes and scales apart, and their products in double precision.</summary>
internal static class CodedData
{
    private const double Symmetric4 = 4.3, Symmetric8 = 8.3;

    public static readonly ImmutableArray<CodedCase> Cases =
    [
        new(CodeNumbers.Integer, 4, 128, ZeroKind.Symmetric, ScaleKind.F16, MostBits: Symmetric4),
        new(CodeNumbers.Integer, 4, 128, ZeroKind.Groups, ScaleKind.BF16, MostBits: Symmetric4),
        new(CodeNumbers.Integer, 4, 128, ZeroKind.Groups, ScaleKind.F16, true, MostBits: Symmetric4),
        new(CodeNumbers.Integer, 4, 128, ZeroKind.Symmetric, ScaleKind.F32, true, MostBits: Symmetric4),
        new(CodeNumbers.Integer, 4, 0, ZeroKind.Groups, ScaleKind.F16, MostBits: Symmetric4),
        new(CodeNumbers.Integer, 4, 64, ZeroKind.Groups, ScaleKind.F32, MostBits: 4.7),
        new(CodeNumbers.Integer, 4, 32, ZeroKind.Constant, ScaleKind.F16, MostBits: 4.8),
        new(CodeNumbers.Integer, 4, 32, ZeroKind.None, ScaleKind.BF16, MostBits: 4.6),
        new(CodeNumbers.Integer, 4, 16, ZeroKind.Symmetric, ScaleKind.F16, MostBits: 5.1),
        new(CodeNumbers.Integer, 4, 16, ZeroKind.Groups, ScaleKind.F16, MostBits: 6.1),
        new(CodeNumbers.Integer, 1, 64, ZeroKind.Symmetric, ScaleKind.F16, MostBits: 1.5),
        new(CodeNumbers.Integer, 2, 64, ZeroKind.Groups, ScaleKind.F16, true, MostBits: 2.5),
        new(CodeNumbers.Integer, 3, 128, ZeroKind.Groups, ScaleKind.F32, MostBits: 3.4),
        new(CodeNumbers.Integer, 5, 96, ZeroKind.Symmetric, ScaleKind.F16, MostBits: 5.6),
        new(CodeNumbers.Integer, 6, 256, ZeroKind.Groups, ScaleKind.BF16, MostBits: 6.3),
        new(CodeNumbers.Integer, 7, 128, ZeroKind.Groups, ScaleKind.F16, MostBits: Symmetric8),
        new(CodeNumbers.Integer, 8, 0, ZeroKind.Symmetric, ScaleKind.F32, MostBits: Symmetric8),
        new(CodeNumbers.Integer, 8, 0, ZeroKind.Constant, ScaleKind.F32, true, MostBits: 8.4),
        new(CodeNumbers.Integer, 8, 64, ZeroKind.Constant, ScaleKind.F32, MostBits: 8.7),
        new(CodeNumbers.E2M1, 4, 16, ZeroKind.None, ScaleKind.SmallFloat, MostBits: 4.6),
        new(CodeNumbers.E2M1, 4, 16, ZeroKind.None, ScaleKind.F32, true, MostBits: 6.1),
        new(CodeNumbers.E2M1, 4, 32, ZeroKind.None, ScaleKind.Power, MostBits: 4.3),
        new(CodeNumbers.E2M1, 4, 64, ZeroKind.None, ScaleKind.BF16, MostBits: 4.3),
        new(CodeNumbers.E2M1, 4, 24, ZeroKind.None, ScaleKind.F32, MostBits: 5.4),
        new(CodeNumbers.E4M3, 8, 128, ZeroKind.None, ScaleKind.F32, MostBits: Symmetric8),
        new(CodeNumbers.E4M3, 8, 0, ZeroKind.None, ScaleKind.BF16, MostBits: Symmetric8),
        new(CodeNumbers.E5M2, 8, 0, ZeroKind.None, ScaleKind.F32, MostBits: Symmetric8),
        new(CodeNumbers.E4M3, 8, 32, ZeroKind.None, ScaleKind.Power, MostBits: 9.1),
        new(CodeNumbers.Table, 4, 64, ZeroKind.None, ScaleKind.F32, MostBits: 4.6),
        new(CodeNumbers.Table, 4, 8, ZeroKind.None, ScaleKind.F32, MostBits: 8.1),
        new(CodeNumbers.Table, 4, 0, ZeroKind.None, ScaleKind.F32, MostBits: 4.1),
        new(CodeNumbers.Integer, 4, 1, ZeroKind.Groups, ScaleKind.F32),
        new(CodeNumbers.E4M3, 8, 4, ZeroKind.None, ScaleKind.F32),
        new(CodeNumbers.Integer, 4, 24, ZeroKind.Groups, ScaleKind.F32, true),
        new(CodeNumbers.Integer, 8, 128, ZeroKind.Groups, ScaleKind.F16),
        new(CodeNumbers.E4M3, 8, 128, ZeroKind.None, ScaleKind.F32, true),
        new(CodeNumbers.Table, 6, 64, ZeroKind.None, ScaleKind.F32),
        new(CodeNumbers.Integer, 1, 0, ZeroKind.None, ScaleKind.BF16, MostBits: 1.2),
        new(CodeNumbers.Integer, 1, 16, ZeroKind.Symmetric, ScaleKind.F16, MostBits: 3.1),
        new(CodeNumbers.Integer, 1, 128, ZeroKind.Groups, ScaleKind.F16, true, MostBits: 1.3),
        new(CodeNumbers.Integer, 2, 128, ZeroKind.Symmetric, ScaleKind.F16, MostBits: 2.2),
        new(CodeNumbers.Integer, 2, 32, ZeroKind.None, ScaleKind.F16, MostBits: 2.6),
        new(CodeNumbers.Integer, 2, 16, ZeroKind.Groups, ScaleKind.F16, MostBits: 4.1),
        new(CodeNumbers.Integer, 2, 128, ZeroKind.Constant, ScaleKind.F32, MostBits: 2.4),
        new(CodeNumbers.Integer, 3, 64, ZeroKind.Symmetric, ScaleKind.F16, true, MostBits: 3.4),
        new(CodeNumbers.Integer, 3, 16, ZeroKind.Symmetric, ScaleKind.BF16, MostBits: 4.1),
        new(CodeNumbers.Integer, 3, 32, ZeroKind.Groups, ScaleKind.F16, MostBits: 3.8),
    ];

    public static TheoryData<int> All => [.. Enumerable.Range(0, Cases.Length)];

    /// <param name="kind">What it is.</param>
    /// <param name="rows">Outputs.</param>
    /// <param name="columns">Inputs.</param>
    /// <param name="random">Where codes and scales come from.</param>
    /// <param name="name">Its tensor.</param>
    /// <param name="order">Its order where that is not a random one, or none.</param>
    public static TestCodedMatrix Make(CodedCase kind, int rows, int columns, Random random, string name = "w", int[]? order = null)
    {
        int group = kind.Group == 0 ? columns : kind.Group, groups = (columns + group - 1) / group, codes = 1 << kind.Bits;
        float[] table = kind.Numbers switch
        {
            CodeNumbers.Integer => [],
            CodeNumbers.Table => [.. Enumerable.Range(0, codes).Select(_ => random.NextSingle() * 2 - 1)],
            _ => [.. CodeTables.Of(kind.Numbers)],
        };
        int? zero = kind.Zero switch { ZeroKind.Symmetric => codes / 2, ZeroKind.None => 0, ZeroKind.Constant => codes / 2 - 1, _ => null };
        float factor = random.NextSingle() + 0.5f;
        int[] shuffled = [.. Enumerable.Range(0, columns)];
        random.Shuffle(shuffled);
        return new TestCodedMatrix
        {
            Name = name,
            Format = kind.ToString(),
            Rows = rows,
            Columns = columns,
            Bits = kind.Bits,
            Numbers = kind.Numbers,
            Table = [.. table],
            GroupColumns = group,
            Zero = zero,
            Order = order is not null ? [.. order] : kind.Ordered ? [.. shuffled] : [],
            Parts = [TestCodedMatrix.Part(name, random)],
            Codes = [.. Enumerable.Range(0, rows * columns).Select(_ => FiniteCode())],
            Scales = [.. Enumerable.Range(0, rows * groups).Select(_ => Scale(kind.Scale, factor, random))],
            // Past the largest code where zero points are one more than they are stored as.
            Zeros = [.. Enumerable.Range(0, rows * groups).Select(_ => zero ?? random.Next(codes + 1))],
        };

        byte FiniteCode()
        {
            byte code;
            do
            {
                code = (byte)random.Next(codes);
            }
            while (table.Length > 0 && !float.IsFinite(table[code]));
            return code;
        }
    }

    /// <summary>Sets two neighbours of every four of a row to zero, whichever, and sometimes more; zeros of 4-bit floats have both signs.</summary>
    public static void Prune(TestCodedMatrix matrix, Random random)
    {
        for (int i = 0; i < matrix.Codes.Length; i++)
        {
            int row = i / matrix.Columns, place = i % matrix.Columns, group = row * matrix.Groups + place / matrix.GroupColumns;
            if (place % matrix.GroupColumns == 0)
            {
                matrix.Zeros[group] = Math.Min(matrix.Zeros[group], (1 << matrix.Bits) - 1); // Beyond the codes, none would be zero.
            }
            if ((place + row) % 2 == place / 4 % 2 || random.Next(8) == 0)
            {
                matrix.Codes[i] = (byte)(matrix.Numbers == CodeNumbers.E2M1 && random.Next(2) == 0 ? 8 : matrix.Zeros[group]);
            }
        }
    }

    /// <summary>A linear map of whole matrices side by side.</summary>
    public static PackedLinear Load(ThreadTeam team, params TestCodedMatrix[] matrices)
    {
        using var checkpoint = new TestCodedCheckpoint(matrices);
        LinearPart[] parts = [.. matrices.Select(static matrix => new LinearPart((int)matrix.Rows, new WeightRef(matrix.Name)))];
        return PackedLinear.Load(new LinearPlan(matrices[0].Columns, [.. parts]), checkpoint, team);
    }

    private static float Scale(ScaleKind kind, float factor, Random random)
    {
        float scale = (random.NextSingle() + 0.25f) * MathF.ScaleB(1, random.Next(-9, -3));
        return kind switch
        {
            ScaleKind.BF16 => BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits(-scale) & 0xFFFF0000),
            ScaleKind.F16 => (float)(Half)scale,
            ScaleKind.Power => MathF.ScaleB(1, random.Next(-12, -3)),
            ScaleKind.SmallFloat => CodeTables.Of(CodeNumbers.E4M3)[random.Next(0x7F)] * factor,
            _ => scale,
        };
    }
}

/// <summary>Codes, scales and zero points in arrays, row-major by place and group.</summary>
internal sealed class TestCodedMatrix : CodedMatrix
{
    public required byte[] Codes { get; init; }

    public required float[] Scales { get; init; }

    public required int[] Zeros { get; init; }

    public override void ReadCodes(long row, Span<byte> codes) => Codes.AsSpan((int)row * Columns, Columns).CopyTo(codes);

    public override void ReadScales(long row, Span<float> scales, Span<int> zeros)
    {
        Scales.AsSpan((int)row * Groups, Groups).CopyTo(scales);
        if (Zero is null)
        {
            Zeros.AsSpan((int)row * Groups, Groups).CopyTo(zeros);
        }
    }

    /// <summary>The same stored under another name.</summary>
    public TestCodedMatrix Named(string name) => Copy(name, Scales);

    /// <summary>The same with scales times a power of two, so that an output is about as large as an input.</summary>
    public TestCodedMatrix Normalized()
    {
        double squares = 0;
        for (int i = 0; i < Codes.Length; i++)
        {
            squares += Math.Pow(At(i / Columns, i % Columns).Weight, 2);
        }
        float by = MathF.ScaleB(1, -(int)Math.Round(Math.Log2(Math.Sqrt(squares / Rows))));
        return Copy(Name, [.. Scales.Select(scale => scale * by)]);
    }

    private TestCodedMatrix Copy(string name, float[] scales) => new()
    {
        Name = name,
        Format = Format,
        Rows = Rows,
        Columns = Columns,
        Bits = Bits,
        Numbers = Numbers,
        Table = Table,
        GroupColumns = GroupColumns,
        Zero = Zero,
        Order = Order,
        Parts = Parts,
        Codes = Codes,
        Scales = scales,
        Zeros = Zeros,
    };

    /// <summary>The column that a place holds.</summary>
    public int Column(int place) => Order.IsEmpty ? place : Order[place];

    /// <summary>The weight at a place, and how large the terms are that it may be made of.</summary>
    public (double Weight, double Magnitude) At(int row, int place)
    {
        int group = row * Groups + place / GroupColumns, code = Codes[row * Columns + place];
        double number = Table.IsEmpty ? code : Table[code], scale = Scales[group];
        return ((number - Zeros[group]) * scale, (Math.Abs(number) + Math.Abs(Zeros[group]) + (Table.IsEmpty ? 1 << Bits : 0)) * Math.Abs(scale));
    }

    /// <summary>A tensor that stands for what is stored.</summary>
    public static TensorView Part(string name, Random random)
    {
        var bytes = new byte[64];
        random.NextBytes(bytes);
        return new MemoryCheckpoint().Add(name + "_codes", DType.U8, [64], bytes);
    }
}

/// <summary>Matrices with codes and scales apart in place of, or beside, the tensors of another checkpoint.</summary>
internal sealed class TestCodedCheckpoint(IEnumerable<TestCodedMatrix> matrices, Checkpoint? others = null) : Checkpoint
{
    private readonly Dictionary<string, TestCodedMatrix> coded = matrices.ToDictionary(static matrix => matrix.Name);

    public override string Path => "(coded)";

    public override IReadOnlyCollection<string> TensorNames => others is null ? coded.Keys : [.. others.TensorNames.Union(coded.Keys)];

    public override JsonObject Config => others?.Config ?? [];

    public override bool TryGetTensor(string name, [NotNullWhen(true)] out TensorView? tensor)
    {
        tensor = coded.TryGetValue(name, out TestCodedMatrix? matrix) ? TensorView.Of(matrix, this) : null;
        return tensor is not null || (others is not null && others.TryGetTensor(name, out tensor));
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            others?.Dispose();
        }
        base.Dispose(disposing);
    }
}
