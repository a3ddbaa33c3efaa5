using Engine.Checkpoints;
using Engine.Execution;
using Engine.Plans;

namespace Engine.Reference;

/// <summary>The slots of every row and their weights, [capacity, most].</summary>
public sealed class ReferenceSelection(int capacity, int most) : ExpertSelection(capacity, most)
{
    /// <summary>Slots, row-major; −1 past a row's last.</summary>
    public int[] Slots { get; } = new int[capacity * most];

    /// <summary>What each counts; 0 past a row's last.</summary>
    public float[] Weights { get; } = new float[capacity * most];

    /// <inheritdoc/>
    public override void Dispose()
    {
    }
}

/// <summary>Mixtures of experts. Experts are chosen in float32, as everywhere; what they output is computed in double precision.</summary>
public sealed partial class ReferenceBackend
{
    /// <summary>What a weight takes is no business of a reference: slots are counted, bytes are not.</summary>
    public ExpertTraffic ExpertTraffic { get; private set; }

    /// <inheritdoc/>
    public DeviceWeights LoadExperts(ExpertsPlan plan, Checkpoint checkpoint) => new ReferenceExperts(plan, checkpoint);

    /// <inheritdoc/>
    public ExpertSelection AllocateSelection(int capacity, int most) => new ReferenceSelection(capacity, most);

    /// <inheritdoc/>
    public void Recur(RecurrentCell cell, Activations input, Activations hidden, Activations state)
    {
        int width = state.Width;
        var fromInput = Check(input, cell.Gates() * width, state.Rows);
        var fromState = Check(hidden, cell.Gates() * width, state.Rows);
        var result = Check(state, width);
        for (int row = 0; row < state.Rows; row++)
        {
            Span<double> u = fromInput.Row(row), v = fromState.Row(row), h = result.Row(row);
            for (int i = 0; i < width; i++)
            {
                if (cell == RecurrentCell.Rnn)
                {
                    h[i] = Math.Tanh(u[i] + v[i]);
                    continue;
                }
                double r = 1 / (1 + Math.Exp(-u[i] - v[i]));
                double z = 1 / (1 + Math.Exp(-u[width + i] - v[width + i]));
                double n = Math.Tanh(u[2 * width + i] + r * v[2 * width + i]);
                h[i] = (1 - z) * n + z * h[i];
            }
        }
    }

    /// <inheritdoc/>
    public void SelectExperts(ExpertsPlan plan, Activations logits, int perToken, ExpertSelection selection)
    {
        var source = Check(logits, plan.Router.Outputs);
        var result = (ReferenceSelection)selection;
        CheckStepRows(logits);
        if (logits.Rows > result.Capacity || perToken < 1 || perToken > plan.Kept || perToken + plan.Shared.Length > result.Most)
        {
            throw new EngineException(
                $"{perToken} of {plan.Kept} experts for {logits.Rows} rows do not fit a selection [{result.Capacity}, {result.Most}]");
        }
        result.Rows = logits.Rows;
        var z = new float[logits.Width];
        for (int r = 0; r < logits.Rows; r++)
        {
            for (int i = 0; i < z.Length; i++)
            {
                z[i] = (float)source.Row(r)[i];
            }
            Span<int> slots = result.Slots.AsSpan(r * result.Most, result.Most);
            Span<float> weights = result.Weights.AsSpan(r * result.Most, result.Most);
            int count = ExpertRouting.Select(plan, z, perToken, ExpertRouting.Seed(plan.Router, Selected.Rows[r]), slots, weights);
            slots[count..].Fill(-1);
            weights[count..].Clear();
        }
    }

    /// <inheritdoc/>
    public void ApplyExperts(DeviceWeights experts, Activations input, ExpertSelection selection, Activations output)
    {
        var weights = (ReferenceExperts)experts;
        var chosen = (ReferenceSelection)selection;
        Check(input, output.Width, chosen.Rows);
        Check(output, input.Width, chosen.Rows);
        // One expert after the other, so that its weights are decoded once. A row's sum is in slot order then, which doubles hardly notice.
        for (int slot = 0; slot < weights.Slots.Length; slot++)
        {
            var rows = new List<int>();
            var factors = new List<float>();
            for (int i = 0; i < chosen.Rows * chosen.Most; i++)
            {
                if (chosen.Slots[i] == slot)
                {
                    rows.Add(i / chosen.Most);
                    factors.Add(chosen.Weights[i]);
                }
            }
            if (rows.Count > 0 && weights.Slots[slot] is var (plan, inWeights, downWeights))
            {
                ExpertTraffic = ExpertTraffic with { Slots = ExpertTraffic.Slots + 1 };
                var x = new ReferenceActivations(rows.Count, input.Width);
                var inner = new ReferenceActivations(rows.Count, plan.In.Outputs) { Rows = rows.Count };
                var activated = new ReferenceActivations(rows.Count, plan.Width) { Rows = rows.Count };
                var y = new ReferenceActivations(rows.Count, output.Width) { Rows = rows.Count };
                Gather(input, rows.ToArray(), x);
                Multiply(inWeights, x, inner);
                Activate(plan.Activation, inner, activated, plan.Clamp);
                Multiply(downWeights, activated, y);
                ScatterAdd(y, factors.ToArray(), rows.ToArray(), output);
            }
        }
    }

    /// <inheritdoc/>
    public void ReadSelection(ExpertSelection selection, Span<int> slots, Span<float> weights)
    {
        var chosen = (ReferenceSelection)selection;
        chosen.Slots.AsSpan(0, chosen.Rows * chosen.Most).CopyTo(slots);
        chosen.Weights.AsSpan(0, chosen.Rows * chosen.Most).CopyTo(weights);
    }
}
