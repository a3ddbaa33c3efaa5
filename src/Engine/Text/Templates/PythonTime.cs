using System.Globalization;
using System.Text;

namespace Engine.Text.Templates;

/// <summary>Python's <c>datetime.strftime</c> in the C locale on a time without a zone, with glibc's flags <c>- _ 0 ^</c>.</summary>
internal static class PythonTime
{
    public static string Format(DateTime time, string format)
    {
        var text = new StringBuilder();
        for (int i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                text.Append(format[i]);
                continue;
            }
            char flag = format[i + 1] is '-' or '_' or '0' or '^' && i + 2 < format.Length ? format[++i] : ' ';
            text.Append(Flagged(Directive(time, format[++i]), flag));
        }
        return text.ToString();
    }

    private static string Flagged(string field, char flag)
    {
        if (flag == '^') return field.ToUpperInvariant();
        if (flag is not ('-' or '_') || field.Length == 0 || !field.All(c => char.IsAsciiDigit(c) || c == ' ')) return field;
        string digits = field.TrimStart(' ').TrimStart('0');
        if (digits.Length == 0) digits = "0";
        return flag == '-' ? digits : digits.PadLeft(field.Length);
    }

    private static string Directive(DateTime time, char directive)
    {
        int sundayBased = (int)time.DayOfWeek, mondayBased = (sundayBased + 6) % 7;
        return directive switch
        {
            'a' => Text("ddd"),
            'A' => Text("dddd"),
            'b' or 'h' => Text("MMM"),
            'B' => Text("MMMM"),
            'c' => $"{Text("ddd MMM")} {time.Day,2} {Text("HH:mm:ss yyyy")}",
            'C' => Number(time.Year / 100, 2),
            'd' => Text("dd"),
            'D' or 'x' => Text("MM'/'dd'/'yy"),
            'e' => $"{time.Day,2}",
            'f' => Text("ffffff"),
            'F' => Text("yyyy-MM-dd"),
            'g' => Number(ISOWeek.GetYear(time) % 100, 2),
            'G' => Number(ISOWeek.GetYear(time), 4),
            'H' => Text("HH"),
            'I' => Text("hh"),
            'j' => Number(time.DayOfYear, 3),
            'k' => $"{time.Hour,2}",
            'l' => $"{(time.Hour + 11) % 12 + 1,2}",
            'm' => Text("MM"),
            'M' => Text("mm"),
            'n' => "\n",
            'p' => Text("tt"),
            'P' => Text("tt").ToLowerInvariant(),
            'r' => Text("hh:mm:ss tt"),
            'R' => Text("HH:mm"),
            'S' => Text("ss"),
            't' => "\t",
            'T' or 'X' => Text("HH:mm:ss"),
            'u' => Number(mondayBased + 1, 1),
            'U' => Number((time.DayOfYear + 6 - sundayBased) / 7, 2),
            'V' => Number(ISOWeek.GetWeekOfYear(time), 2),
            'w' => Number(sundayBased, 1),
            'W' => Number((time.DayOfYear + 6 - mondayBased) / 7, 2),
            'y' => Text("yy"),
            'Y' => Number(time.Year, 1),
            'z' or 'Z' => "",
            '%' => "%",
            _ => throw new TemplateFault($"strftime_now does not know %{directive}"),
        };

        string Text(string pattern) => time.ToString(pattern, CultureInfo.InvariantCulture);
        static string Number(int number, int digits) => number.ToString(CultureInfo.InvariantCulture).PadLeft(digits, '0');
    }
}
