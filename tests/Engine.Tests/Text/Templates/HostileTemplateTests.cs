using System.Text;
using Engine.Text.Templates;
using Xunit;

namespace Engine.Tests.Text.Templates;

/// <summary>Templates that would loop, recurse or grow without end are stopped with an exception.</summary>
public sealed class HostileTemplateTests
{
    // Tight limits keep the tests short; what is tested is that everything is counted.
    private static readonly ChatTemplateLimits Tight = new() { MaxSteps = 2_000_000, MaxTextLength = 1_000_000, MaxAllocation = 8_000_000 };

    public static TheoryData<string> Runaways => new(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{{ range(100001) }}",
        "{{ 'a' * 10**12 }}",
        "{{ '' * 10**30 }}",
        "{{ [0] * 10**9 }}",
        "{{ 2**(10**9) }}",
        "{{ 10**4299 * 10**4299 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% macro r() %}{% call m() %}{{ r() }}{% endcall %}{% endmacro %}{{ r() }}",
        "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{% set ns=namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x=[ns.x,ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns=namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x=[ns.x] %}{% endfor %}{{ ns.x|tojson }}",
        "{% set ns=namespace(x='ab') %}{% for i in range(99) %}{% set ns.x=ns.x~ns.x %}{% endfor %}",
        "{% set ns=namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x=ns.x+ns.x %}{% endfor %}",
        "{% set ns=namespace() %}{% set ns.x=ns %}{{ ns }}",
        "{% set ns=namespace(x=(1,)) %}{% for i in range(18) %}{% set ns.x=(ns.x,ns.x) %}{% endfor %}"
            + "{% for i in range(9999) %}{% set z={ns.x:i} %}{% endfor %}",
        "{% set s='a'*900000 %}{{ s.replace('a', s) }}",
        "{% set s='a'*900000 %}{% for i in range(99999) %}{{ 'b' in s }}{% endfor %}",
        "{% set s='a'*90000 %}{{ s|list|join(s) }}",
        "{% set s='a'*90000 %}{{ ('{0}'*1000).format(s) }}",
        "{% set s='a'*90000 %}{{ ('%(a)s'*1000) % {'a':s} }}",
        "{% set x=range(99999)|list %}{% for i in x %}{% set y=x[1:] %}{% endfor %}",
        "{% set x=range(9999)|list %}{% for i in range(9999) %}{% set y=x|sort %}{% endfor %}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%.999999999f' % 1.5 }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ 'a'|center(10**9) }}",
        "{{ 'a'.ljust(10**20) }}",
        "{{ 'a'.zfill(2**31-1) }}",
        "{{ 'a\nb'|indent(10**9) }}",
        "{{ [[]]|tojson(indent=10**9) }}",
        "{{ [1]|batch(10**9, 'x')|list }}",
        "{{ [1]|slice(10**9)|list }}");

    [Theory]
    [MemberData(nameof(Runaways))]
    public void AreStoppedByTheirLimits(string template)
    {
        Assert.Throws<EngineException>(() => Conversations.Render(template, limits: Tight));
    }

    [Theory]
    [InlineData("(", "1", ")")]
    [InlineData("[", "1", "]")]
    [InlineData("not ", "1", "")]
    [InlineData("-", "1", "")]
    [InlineData("1 + ", "1", "")]
    [InlineData("1 if x else ", "1", "")]
    [InlineData("", "x", ".a")]
    [InlineData("", "x", "|upper")]
    [InlineData("", "1", " if 1")]
    public void DeepExpressionsDoNotOverflowTheStack(string before, string middle, string after)
    {
        string deep = string.Concat(Enumerable.Repeat(before, 100_000)) + middle + string.Concat(Enumerable.Repeat(after, 100_000));
        Assert.Throws<EngineException>(() => Conversations.Render("{{ " + deep + " }}"));
    }

    [Theory]
    [InlineData("{% if 1 %}", "{% endif %}")]
    [InlineData("{% for x in [1] %}", "{% endfor %}")]
    [InlineData("{% set x %}", "{% endset %}")]
    public void DeepBlocksDoNotOverflowTheStack(string open, string close)
    {
        string deep = string.Concat(Enumerable.Repeat(open, 100_000)) + string.Concat(Enumerable.Repeat(close, 100_000));
        Assert.Throws<EngineException>(() => Conversations.Render(deep));
    }

    [Fact]
    public void LongNeedlesAreSearchedInLinearTime()
    {
        // Compared naively this takes 10¹³ steps; the test is that it ends.
        const string Template = "{% set s = 'a' * 8000000 %}{% set n = 'a' * 4000000 ~ 'b' %}{{ n in s }}{{ s.find(n) }}";
        Assert.Equal("False-1", Conversations.Render(Template));
    }

    [Fact]
    public void RandomTemplatesEitherRenderOrAreRefused()
    {
        int seed = Random.Shared.Next();
        var random = new Random(seed);
        string[] pieces =
        [
            "{{", "}}", "{%", "%}", "{#", "#}", "{%-", "-%}", "{{-", "-}}", " if ", " else ", " endif ", " for ", " in ", " endfor ",
            " set ", " endset ", " macro ", " endmacro ", " call ", " endcall ", " filter ", " raw ", " endraw ", " is ", " not ", " and ",
            "x", "y", "loop", "messages", "m", "1", "2.5", "'a'", "\"b\"", "(", ")", "[", "]", "{", "}", ",", ":", ".", "|", "=", "==",
            "+", "-", "*", "**", "/", "//", "%", "~", "<", ">", "upper", "join", "length", "list", "tojson", "defined", "\n", " ", "text",
            "ü", "\\", "'", "namespace", "range", "true", "none",
        ];
        for (int i = 0; i < 3000; i++)
        {
            var template = new StringBuilder();
            for (int n = random.Next(1, 25); n > 0; n--) template.Append(pieces[random.Next(pieces.Length)]);
            try
            {
                Conversations.Render(template.ToString(), """{"x": [1, "a", {"b": null}], "y": "text"}""", Tight);
            }
            catch (EngineException)
            {
                // Refused, as most of these have to be.
            }
            catch (Exception e)
            {
                Assert.Fail($"seed {seed}: {template}: {e}");
            }
        }
    }
}
