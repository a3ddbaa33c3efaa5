using Engine.Checkpoints;

namespace Engine.Cpu.Matmul.Formats;

/// <summary>d · code, signed: stored with the sign bit flipped, so that codes are unsigned and 128 is their offset.</summary>
internal unsafe struct Q8_0 : IBlockFormat
{
    public static DType DType => DType.Q8_0;
    public static int OffsetShift => 7;

    public static void ReadCodes(byte* block, byte* codes)
    {
        for (int i = 0; i < 32; i++)
        {
            codes[i] = (byte)(block[2 + i] ^ 0x80);
        }
    }
}

/// <summary>d · (code − 8).</summary>
internal unsafe struct Q4_0 : IBlockFormat
{
    public static DType DType => DType.Q4_0;
    public static int OffsetShift => 3;

    public static void ReadCodes(byte* block, byte* codes) => SplitNibbles.Read(block + 2, codes);
}

/// <summary>d · code + m.</summary>
internal unsafe struct Q4_1 : IBlockFormat
{
    public static DType DType => DType.Q4_1;
    public static int OffsetShift => 0;

    public static void ReadCodes(byte* block, byte* codes) => SplitNibbles.Read(block + 4, codes);
}

/// <summary>d · (code − 16).</summary>
internal unsafe struct Q5_0 : IBlockFormat
{
    public static DType DType => DType.Q5_0;
    public static int OffsetShift => 4;

    public static void ReadCodes(byte* block, byte* codes) => SplitNibbles.Read(block + 6, codes, *(uint*)(block + 2));
}

/// <summary>d · code + m.</summary>
internal unsafe struct Q5_1 : IBlockFormat
{
    public static DType DType => DType.Q5_1;
    public static int OffsetShift => 0;

    public static void ReadCodes(byte* block, byte* codes) => SplitNibbles.Read(block + 8, codes, *(uint*)(block + 4));
}

/// <summary>d · s · code − dmin · m, 256 inputs.</summary>
internal unsafe struct Q4_K : IBlockFormat
{
    public static DType DType => DType.Q4_K;
    public static int OffsetShift => 0;

    public static void ReadCodes(byte* block, byte* codes)
    {
        for (int i = 0; i < 256; i++)
        {
            codes[i] = (byte)(block[16 + 32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2)) & 15);
        }
    }
}

/// <summary>As <see cref="Q4_K"/> with a fifth bit.</summary>
internal unsafe struct Q5_K : IBlockFormat
{
    public static DType DType => DType.Q5_K;
    public static int OffsetShift => 0;

    public static void ReadCodes(byte* block, byte* codes)
    {
        for (int i = 0; i < 256; i++)
        {
            int low = block[48 + 32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2)) & 15;
            codes[i] = (byte)(low | (block[16 + i % 32] >> (i / 32) & 1) << 4);
        }
    }
}

/// <summary>d · s · (code − 32), 256 inputs.</summary>
internal unsafe struct Q6_K : IBlockFormat
{
    public static DType DType => DType.Q6_K;
    public static int OffsetShift => 5;

    public static void ReadCodes(byte* block, byte* codes)
    {
        for (int i = 0; i < 256; i++)
        {
            int half = i / 128, quarter = i % 128 / 32, lane = i % 32;
            int low = block[64 * half + 32 * (quarter & 1) + lane] >> (4 * (quarter >> 1)) & 15;
            codes[i] = (byte)(low | (block[128 + 32 * half + lane] >> (2 * quarter) & 3) << 4);
        }
    }
}

/// <summary>d · (code − 16), the codes looked up: twice the number that a nibble stands for, plus 16. d is half the scale of the file.</summary>
internal unsafe struct MXFP4 : IBlockFormat
{
    public static DType DType => DType.MXFP4;
    public static int OffsetShift => E2M1Table.OffsetShift;

    public static void ReadCodes(byte* block, byte* codes) => SplitNibbles.Read(block + 1, codes);
}

/// <summary>16 bytes whose low nibbles are elements 0–15 and whose high nibbles are 16–31; a fifth bit of element i is bit i of a word.</summary>
internal static unsafe class SplitNibbles
{
    public static void Read(byte* nibbles, byte* codes, uint fifthBits = 0)
    {
        for (int i = 0; i < 16; i++)
        {
            codes[i] = (byte)(nibbles[i] & 15 | (int)(fifthBits >> i & 1) << 4);
            codes[i + 16] = (byte)(nibbles[i] >> 4 | (int)(fifthBits >> (i + 16) & 1) << 4);
        }
    }
}
