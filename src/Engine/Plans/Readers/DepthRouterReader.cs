using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Engine.Plans.Readers;

/// <summary>
/// Reads the section <c>mor</c> and the routers' tensors (Bae et al. 2025; keys and defaults as in mixture_of_recursions,
/// <c>expert_choice_router.py</c> and <c>token_choice_router.py</c>).
/// </summary>
internal static class DepthRouterReader
{
    /// <summary>Who chooses.</summary>
    public static DepthRouterKind Kind(ConfigReader section) => section.Text("type", null) switch
    {
        "expert" => DepthRouterKind.ExpertChoice,
        "token" => DepthRouterKind.TokenChoice,
        null => throw section.Error("type", "the key is missing"),
        var other => throw section.Error("type", $"expected expert or token; found '{other}'"),
    };

    /// <summary>Makes the plan.</summary>
    /// <param name="section">The section <c>mor</c>.</param>
    /// <param name="tensors">The tensors.</param>
    /// <param name="hidden">Width of the routers' input.</param>
    /// <param name="recursions">Depths.</param>
    /// <param name="places">What the names of a router's tensors begin with: one per depth, or one for all (token choice).</param>
    public static DepthRouterPlan Read(ConfigReader section, TensorCatalog tensors, int hidden, int recursions, IReadOnlyList<string> places)
    {
        KeyTable.Require(section, "enable", "type", "capacity", "rand_router", "router_type", "temp", "expert", "token", "z_loss", "z_coeff");
        if (section.Flag("rand_router", false))
        {
            throw section.Error("rand_router", "the routes of this model are random numbers; there is nothing to compute them from");
        }
        bool isDeep = section.Text("router_type", null) switch
        {
            "linear" => false,
            // One code in the reference: the paper's wide router is four times as wide, the code's is two, as the other.
            "mlp" or "wide_mlp" => true,
            null => throw section.Error("router_type", "the key is missing"),
            var other => throw section.Error("router_type", $"expected linear, mlp or wide_mlp; found '{other}'"),
        };
        var shape = new RouterShape(tensors, hidden, isDeep);
        float temperature = (float)section.Positive("temp", 1);
        return Kind(section) == DepthRouterKind.ExpertChoice
            ? Expert(section, Choice("expert"), shape, recursions, places) with { Temperature = temperature }
            : Token(Choice("token"), shape, recursions, places[0]) with { Temperature = temperature };

        ConfigReader Choice(string key) => section.Part(key) ?? throw section.Error(key, "the section is missing");
    }

    private static DepthRouterPlan Expert(
        ConfigReader section, ConfigReader expert, RouterShape shape, int recursions, IReadOnlyList<string> places)
    {
        KeyTable.Require(expert, "router_func", "alpha", "sampling", "gating", "cap_warmup_step", "coeff", "include_first");
        bool predicts = expert.Text("sampling", null) switch
        {
            "aux_router" => true,
            "aux_loss" or null => false,
            var other => throw expert.Error("sampling", $"expected aux_loss, aux_router or null; found '{other}'"),
        };
        return new DepthRouterPlan
        {
            Kind = DepthRouterKind.ExpertChoice,
            Networks = [.. places.Select(place => shape.Network($"{place}.mor_router", 1))],
            Auxiliary = predicts ? [.. places.Select(place => shape.Network($"{place}.mlp_router", 1))] : [],
            Score = expert.Text("router_func", null) switch
            {
                null => RouterScore.None,
                "sigmoid" => RouterScore.Sigmoid,
                "tanh" => RouterScore.Tanh,
                var other => throw expert.Error("router_func", $"expected sigmoid, tanh or null; found '{other}'"),
            },
            Alpha = (float)expert.Number("alpha", 0.1),
            Weighted = IsWeighted(expert),
            Capacities = Capacities(section, recursions),
        };
    }

    private static DepthRouterPlan Token(ConfigReader token, RouterShape shape, int recursions, string place)
    {
        KeyTable.Require(token, "router_func", "alpha", "balancing", "gating", "bal_warmup_step", "coeff", "u");
        RouterScore score = token.Text("router_func", "softmax") switch
        {
            "softmax" => RouterScore.Softmax,
            "sigmoid" => RouterScore.Sigmoid,
            var other => throw token.Error("router_func", $"expected softmax or sigmoid; found '{other}'"),
        };
        bool isBiased = token.Text("balancing", null) switch
        {
            "loss_free" => true,
            "loss" or null => false,
            var other => throw token.Error("balancing", $"expected loss or loss_free; found '{other}'"),
        };
        return new DepthRouterPlan
        {
            Kind = DepthRouterKind.TokenChoice,
            Networks = [shape.Network($"{place}.mor_router", recursions)],
            Score = score,
            Alpha = (float)token.Number("alpha", score == RouterScore.Softmax ? 1 : 0.1),
            Weighted = IsWeighted(token),
            SelectionBias = isBiased ? [.. shape.Tensors.Values($"{place}.router_bias", recursions, anyFloat: true)] : [],
        };
    }

    private static bool IsWeighted(ConfigReader choice) => choice.Text("gating", "weighted") switch
    {
        "weighted" => true,
        "additive" => false,
        var other => throw choice.Error("gating", $"expected weighted or additive; found '{other}'"),
    };

    /// <summary>
    /// A list such as <c>1.0,0.5</c>, or (R − i) / R where there is none. As doubles: 0.6666666666666666 of 12 tokens are then 8.
    /// </summary>
    private static ImmutableArray<double> Capacities(ConfigReader section, int recursions)
    {
        const string key = "capacity";
        if (section.Node(key) is not { } node)
        {
            return [.. Enumerable.Range(0, recursions).Select(depth => (double)(recursions - depth) / recursions)];
        }
        string[] parts = node.GetValueKind() == JsonValueKind.String ? node.GetValue<string>().Split(',') : [ConfigReader.Show(node)];
        if (parts.Length != recursions)
        {
            throw section.Error(key, $"expected {recursions} numbers, one per recursion; found {ConfigReader.Show(node)}");
        }
        var capacities = ImmutableArray.CreateBuilder<double>(recursions);
        foreach (string part in parts)
        {
            bool isNumber = double.TryParse(part.Trim(), NumberStyles.Float, CultureInfo.InvariantCulture, out double capacity);
            double most = capacities.Count == 0 ? 1 : capacities[^1];
            if (!isNumber || !(capacity > 0 && capacity <= most))
            {
                throw section.Error(key, $"expected numbers above 0 that do not rise, from at most 1; found {ConfigReader.Show(node)}");
            }
            capacities.Add(capacity);
        }
        return capacities.MoveToImmutable();
    }

    private sealed record RouterShape(TensorCatalog Tensors, int Hidden, bool IsDeep)
    {
        public RouterNetwork Network(string place, int outputs)
        {
            if (!IsDeep)
            {
                return new RouterNetwork(Linear($"{place}.router", outputs, Hidden));
            }
            int inner = checked(2 * Hidden);
            return new RouterNetwork(Linear($"{place}.router.0", inner, Hidden), Linear($"{place}.router.2", outputs, inner));
        }

        private LinearPlan Linear(string name, int outputs, int inputs) => new(inputs, [Tensors.Part(name, outputs, inputs)]);
    }
}
