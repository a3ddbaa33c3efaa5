using System.Globalization;
using System.Numerics;

namespace Engine.Text.Templates;

/// <summary>Python's arithmetic where it differs from .NET's, and the text of its numbers.</summary>
internal static class PythonNumbers
{
    /// <summary>
    /// How long an integer may be: Python refuses longer ones in text too, and arithmetic on them would take unbounded time.
    /// </summary>
    public const int MaxDigits = 4300;

    private const long MaxBits = 14_285; // 4300 decimal digits

    /// <summary>The integer that a bool or an int is.</summary>
    public static bool TryInteger(Value? value, out BigInteger number)
    {
        number = value switch { IntValue i => i.Number, BoolValue b => b.IsTrue ? 1 : 0, _ => default };
        return value is IntValue or BoolValue;
    }

    /// <summary>The floating-point number that a bool, an int or a float is.</summary>
    public static bool TryFloat(Value? value, out double number)
    {
        number = 0;
        if (value is FloatValue f) number = f.Number;
        else if (TryInteger(value, out BigInteger integer)) number = ToDouble(integer);
        else return false;
        return true;
    }

    public static double ToDouble(BigInteger number)
    {
        double result = (double)number;
        return double.IsFinite(result) ? result : throw new TemplateFault("the integer is too large for a float");
    }

    public static IntValue Checked(BigInteger number) =>
        number.GetBitLength() <= MaxBits ? new IntValue(number) : throw new TemplateFault($"an integer has more than {MaxDigits} digits");

    public static BigInteger FloorDivide(BigInteger left, BigInteger right)
    {
        BigInteger quotient = BigInteger.DivRem(left, right, out BigInteger remainder);
        return !remainder.IsZero && remainder.Sign != right.Sign ? quotient - 1 : quotient;
    }

    public static BigInteger Modulo(BigInteger left, BigInteger right)
    {
        BigInteger remainder = BigInteger.Remainder(left, right);
        return !remainder.IsZero && remainder.Sign != right.Sign ? remainder + right : remainder;
    }

    public static double Modulo(double left, double right)
    {
        double remainder = left % right;
        if (remainder == 0) return Math.CopySign(0, right);
        return remainder < 0 != right < 0 ? remainder + right : remainder;
    }

    public static double FloorDivide(double left, double right)
    {
        double quotient = (left - Modulo(left, right)) / right;
        if (quotient == 0) return Math.CopySign(0, left / right);
        double floor = Math.Floor(quotient);
        return quotient - floor > 0.5 ? floor + 1 : floor;
    }

    public static Value Power(BigInteger number, BigInteger exponent)
    {
        if (exponent.Sign < 0) return Power(ToDouble(number), ToDouble(exponent));
        bool isSmall = number.IsZero || number.IsOne || number == BigInteger.MinusOne;
        if (isSmall) return new IntValue(exponent.IsZero ? 1 : number == -1 && exponent.IsEven ? 1 : number);
        if (exponent * (number.GetBitLength() - 1) > MaxBits) throw new TemplateFault($"an integer has more than {MaxDigits} digits");
        return Checked(BigInteger.Pow(number, (int)exponent));
    }

    public static FloatValue Power(double number, double exponent)
    {
        if (number == 0 && exponent < 0) throw new TemplateFault("0.0 cannot be raised to a negative power");
        double result = Math.Pow(number, exponent);
        if (double.IsNaN(result) && !double.IsNaN(number) && !double.IsNaN(exponent))
            throw new TemplateFault("complex numbers are not supported");
        if (double.IsInfinity(result) && double.IsFinite(number) && double.IsFinite(exponent))
            throw new TemplateFault("the result is too large");
        return new FloatValue(result);
    }

    /// <summary>Orders an integer and a float exactly, without rounding the integer; 0 for equal. NaN is the caller's to handle.</summary>
    public static int Compare(BigInteger integer, double number)
    {
        if (double.IsInfinity(number)) return number > 0 ? -1 : 1;
        double floor = Math.Floor(number);
        int order = integer.CompareTo(new BigInteger(floor));
        return order == 0 && floor < number ? -1 : order;
    }

    /// <summary>
    /// Exactly <paramref name="number"/>·10^<paramref name="digits"/>, rounded half to even as Python rounds: a float is m·2^e, so this is
    /// a division of integers.
    /// </summary>
    public static BigInteger Scale(double number, int digits)
    {
        long bits = BitConverter.DoubleToInt64Bits(number);
        int exponent = (int)((bits >> 52) & 0x7FF);
        long mantissa = bits & 0xF_FFFF_FFFF_FFFF;
        if (exponent == 0) exponent++;
        else mantissa |= 1L << 52;
        exponent -= 1075;

        BigInteger numerator = (mantissa * BigInteger.Pow(10, Math.Max(digits, 0))) << Math.Max(exponent, 0);
        BigInteger denominator = BigInteger.Pow(10, Math.Max(-digits, 0)) << Math.Max(-exponent, 0);
        BigInteger quotient = RoundedQuotient(numerator, denominator);
        return bits < 0 ? -quotient : quotient;
    }

    /// <summary><c>round(number, digits)</c>.</summary>
    public static double Round(double number, int digits)
    {
        if (!double.IsFinite(number) || digits > 323) return number;
        if (digits < -308) return Math.CopySign(0, number);
        return Math.CopySign(double.Parse($"{BigInteger.Abs(Scale(number, digits))}e{-digits}", CultureInfo.InvariantCulture), number);
    }

    /// <summary><c>round(number, digits)</c> of an integer: only a negative number of digits changes it.</summary>
    public static BigInteger Round(BigInteger number, int digits)
    {
        if (digits >= 0) return number;
        if (digits < -MaxDigits) return 0;
        BigInteger unit = BigInteger.Pow(10, -digits);
        return number.Sign * RoundedQuotient(BigInteger.Abs(number), unit) * unit;
    }

    /// <summary>The text of a finite number with a fixed number of decimals.</summary>
    public static string Fixed(double number, int decimals)
    {
        string digits = BigInteger.Abs(Scale(number, decimals)).ToString(CultureInfo.InvariantCulture).PadLeft(decimals + 1, '0');
        string sign = double.IsNegative(number) ? "-" : "";
        return decimals == 0 ? sign + digits : $"{sign}{digits[..^decimals]}.{digits[^decimals..]}";
    }

    /// <summary>
    /// <c>repr</c> of a float: the shortest digits that read back as the same number, with an exponent outside 1e-4…1e16.
    /// </summary>
    public static string Repr(double number)
    {
        if (double.IsNaN(number)) return "nan";
        if (double.IsInfinity(number)) return number > 0 ? "inf" : "-inf";
        string sign = double.IsNegative(number) ? "-" : "";
        if (number == 0) return sign + "0.0";

        // .NET finds the same shortest digits, as [-]whole[.fraction][E±exponent]; Python lays them out by the exponent of the first digit.
        string[] scientific = Math.Abs(number).ToString("R", CultureInfo.InvariantCulture).Split('E');
        string[] mantissa = scientific[0].Split('.');
        string allDigits = string.Concat(mantissa);
        int leadingZeros = allDigits.AsSpan().IndexOfAnyExcept('0');
        int exponent = mantissa[0].Length - 1 - leadingZeros
            + (scientific.Length > 1 ? int.Parse(scientific[1], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture) : 0);
        string digits = allDigits.Trim('0');
        if (exponent is < -4 or >= 16)
        {
            string fraction = digits.Length > 1 ? "." + digits[1..] : "";
            return $"{sign}{digits[0]}{fraction}e{(exponent < 0 ? '-' : '+')}{Math.Abs(exponent):00}";
        }
        if (exponent < 0) return $"{sign}0.{new string('0', -exponent - 1)}{digits}";
        string padded = digits.PadRight(exponent + 1, '0');
        string decimals = padded.Length > exponent + 1 ? padded[(exponent + 1)..] : "0";
        return $"{sign}{padded[..(exponent + 1)]}.{decimals}";
    }

    private static BigInteger RoundedQuotient(BigInteger numerator, BigInteger denominator)
    {
        BigInteger quotient = BigInteger.DivRem(numerator, denominator, out BigInteger remainder);
        int half = (remainder * 2).CompareTo(denominator);
        return half > 0 || (half == 0 && !quotient.IsEven) ? quotient + 1 : quotient;
    }
}
