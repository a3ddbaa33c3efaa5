namespace Engine.Cpu.Matmul;

/// <summary>Forms in which kernels read activations; a linear map of several matrices may need more than one.</summary>
[Flags]
internal enum ActivationForms
{
    /// <summary>None.</summary>
    None = 0,
    /// <summary>Quantized to 8 bits (<see cref="ActivationLayout"/>).</summary>
    Blocks = 1,
    /// <summary>float32 (<see cref="FloatActivations"/>).</summary>
    Floats = 2,
    /// <summary>Rounded to bfloat16, held as float32.</summary>
    RoundedFloats = 4,
    /// <summary>Rounded to bfloat16, two inputs in 32 bits, as VDPBF16PS reads them.</summary>
    Pairs = 8,
}
