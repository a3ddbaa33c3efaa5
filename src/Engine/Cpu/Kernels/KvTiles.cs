using System.Runtime.CompilerServices;
using Engine.Cpu.Simd;

namespace Engine.Cpu.Kernels;

/// <summary>A row-major matrix of a KV tile, decoded as it is read; the layouts are those of <see cref="KvLayout"/>.</summary>
internal unsafe interface IKvTile<TSelf>
    where TSelf : struct, IKvTile<TSelf>
{
    /// <summary>The numbers are float32 as they lie, so that decoding ahead gains nothing.</summary>
    static abstract bool IsPlain { get; }

    static abstract TSelf At(byte* tile, int rows, int columns);

    V Load<TSimd, V>(int row, int column)
        where TSimd : struct, ISimd<V>
        where V : unmanaged;
}

internal readonly unsafe struct F32Tile(float* values, int columns) : IKvTile<F32Tile>
{
    public static bool IsPlain => true;

    public static F32Tile At(byte* tile, int rows, int columns) => new((float*)tile, columns);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public V Load<TSimd, V>(int row, int column)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => TSimd.Load(values + (nint)row * columns + column);
}

internal readonly unsafe struct F16Tile(ushort* values, int columns) : IKvTile<F16Tile>
{
    public static bool IsPlain => false;

    public static F16Tile At(byte* tile, int rows, int columns) => new((ushort*)tile, columns);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public V Load<TSimd, V>(int row, int column)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => TSimd.LoadHalf(values + (nint)row * columns + column);
}

/// <summary>K in Q8_0: a column is a token, 32 rows of it share a scale; scales are [headDim / 32, tileTokens].</summary>
internal readonly unsafe struct Q8KeyTile(sbyte* codes, float* scales, int columns) : IKvTile<Q8KeyTile>
{
    public static bool IsPlain => false;

    public static Q8KeyTile At(byte* tile, int rows, int columns) => new((sbyte*)tile, (float*)(tile + (nint)rows * columns), columns);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public V Load<TSimd, V>(int row, int column)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => TSimd.Multiply(
            TSimd.LoadSByte(codes + (nint)row * columns + column),
            TSimd.Load(scales + (nint)((uint)row / KvLayout.BlockElements) * columns + column));
}

/// <summary>V in Q8_0: a row is a token, 32 columns of it share a scale; scales are [tileTokens, headDim / 32].</summary>
internal readonly unsafe struct Q8ValueTile(sbyte* codes, float* scales, int columns) : IKvTile<Q8ValueTile>
{
    public static bool IsPlain => false;

    public static Q8ValueTile At(byte* tile, int rows, int columns) => new((sbyte*)tile, (float*)(tile + (nint)rows * columns), columns);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public V Load<TSimd, V>(int row, int column)
        where TSimd : struct, ISimd<V>
        where V : unmanaged => TSimd.Multiply(
            TSimd.LoadSByte(codes + (nint)row * columns + column),
            TSimd.Broadcast(scales[(nint)row * (nint)((uint)columns / KvLayout.BlockElements) + (nint)((uint)column / KvLayout.BlockElements)]));
}
