namespace Engine.Cpu.Simd;

/// <summary>What the vector widths share when they turn binary16 into binary32.</summary>
internal static class Half32
{
    /// <summary>2¹¹²: the difference of the exponents' biases, 127 − 15.</summary>
    public const float BiasFactor = 5.192296858534828e33f;
}
