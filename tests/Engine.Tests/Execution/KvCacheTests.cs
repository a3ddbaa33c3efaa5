using Engine.Execution;
using Engine.Plans;
using Engine.Reference;

namespace Engine.Tests.Execution;

/// <summary>The page pool's invariants, on random histories.</summary>
public sealed class KvCacheTests
{
    [Fact]
    public void Random_histories_keep_the_invariants()
    {
        int seed = Random.Shared.Next();
        Random random = new(seed);
        using ReferenceBackend backend = new();
        const int slots = 3, pageTokens = 4, pageCount = 60;
        using KvCache cache = new(backend, [.. Enumerable.Repeat(new KvSlotPlan(1, 4), slots)], KvFormat.F32, pageCount, pageTokens);
        List<KvTrack> tracks = [];
        for (int i = 0; i < 2000; i++)
        {
            switch (random.Next(4))
            {
                case 0:
                    tracks.Add(new KvTrack(slots));
                    break;
                case 1 when tracks.Count > 0:
                    KvTrack grown = tracks[random.Next(tracks.Count)];
                    int free = cache.FreePages;
                    int more = random.Next(1, 9);
                    if (cache.TryReserve(grown, more))
                    {
                        var step = new StepPlan(slots);
                        cache.AddTrack(step, grown, more, sequence: 0);
                        for (int slot = 0; slot < slots; slot++)
                        {
                            // Not every token reaches every slot.
                            step.CountAppended(0, slot, random.Next(more + 1));
                        }
                        cache.Advance(grown, step, 0);
                        if (random.Next(2) == 0)
                        {
                            cache.Trim(grown);
                            Assert.True(Enumerable.Range(0, slots).All(
                                slot => grown.Pages(slot).Length == (grown.Length(slot) + pageTokens - 1) / pageTokens));
                        }
                    }
                    else
                    {
                        Assert.Equal(free, cache.FreePages);
                    }
                    break;
                case 2 when tracks.Count > 0:
                    KvTrack released = tracks[random.Next(tracks.Count)];
                    cache.Release(released);
                    tracks.Remove(released);
                    break;
                case 3 when tracks.Count > 0:
                    KvTrack source = tracks[random.Next(tracks.Count)];
                    KvTrack target = new(slots);
                    int shared = cache.SharePrefix(source, target, random.Next(Enumerable.Range(0, slots).Min(source.Length) + 1));
                    Assert.Equal(shared, target.Length(0));
                    tracks.Add(target);
                    break;
            }
            Check(cache, tracks, slots, $"seed {seed}, operation {i}");
        }
        foreach (KvTrack track in tracks)
        {
            cache.Release(track);
        }
        Assert.Equal(pageCount, cache.FreePages);
    }

    private static void Check(KvCache cache, List<KvTrack> tracks, int slots, string what)
    {
        Dictionary<int, List<(KvTrack Track, int Slot, int Index)>> holders = [];
        foreach (KvTrack track in tracks)
        {
            for (int slot = 0; slot < slots; slot++)
            {
                Assert.True(track.Pages(slot).Length * cache.PageTokens >= track.Length(slot), what);
                for (int index = 0; index < track.Pages(slot).Length; index++)
                {
                    int page = track.Pages(slot)[index];
                    Assert.InRange(page, 0, cache.PageCount - 1);
                    if (!holders.TryGetValue(page, out List<(KvTrack, int, int)>? list))
                    {
                        holders[page] = list = [];
                    }
                    list.Add((track, slot, index));
                }
            }
        }
        Assert.True(cache.PageCount - cache.FreePages == holders.Count, what);
        foreach (List<(KvTrack Track, int Slot, int Index)> shared in holders.Values.Where(static list => list.Count > 1))
        {
            // Shared pages are full for every holder, and stand at the same place of the same slot.
            Assert.True(shared.All(h => h.Track.Length(h.Slot) >= (h.Index + 1) * cache.PageTokens), what);
            Assert.True(shared.All(h => h.Slot == shared[0].Slot && h.Index == shared[0].Index), what);
        }
    }
}
