package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scaleaware/scaleaware/cache"
)

type cacheTest struct {
	size      cacheSize
	origin    *origin
	instances []*instance
}

func (t *cacheTest) probes() []probe {
	return []probe{
		{"warming fills the cache", t.warming},
		{"hit rate", t.hitRate},
		{"one load in a stampede", t.stampede},
		{"a change is seen everywhere", t.change},
		{"an invalidation is seen everywhere", t.invalidation},
		{"extending never shortens", t.extension},
		{"slow Redis", t.slowRedis},
	}
}

// warming must leave nothing to load for whoever comes first, on any instance.
func (t *cacheTest) warming(ctx context.Context) (string, error) {
	report, err := t.instances[0].store.Warm(ctx)
	if err != nil {
		return "", err
	}
	before := t.origin.loads.Load()
	hottest := min(200, t.size.keys)
	for _, i := range t.instances {
		for _, key := range keys(hottest) {
			if _, err := i.items.Load(ctx, key, t.origin.load); err != nil {
				return "", err
			}
		}
	}
	more := t.origin.loads.Load() - before
	return fmt.Sprintf(": %d loaded", report.Sets[0].Loaded), want(report.Complete && more == 0, "complete %v, and %d of the %d hottest keys had to be loaded after it", report.Complete, more, hottest)
}

// hitRate reads with a Zipf-like taste, with a change in a hundred reads, and holds the cache's own figure against the
// loads that the origin counted.
func (t *cacheTest) hitRate(ctx context.Context) (string, error) {
	before := t.origin.loads.Load()
	var group sync.WaitGroup
	errs := make(chan error, t.size.instances)
	for _, i := range t.instances {
		group.Go(func() {
			for n := range t.size.reads / t.size.instances {
				key := strconv.Itoa(zipf(t.size.keys))
				if n%100 == 99 {
					t.origin.change(key)
					if err := i.items.Delete(ctx, key); err != nil {
						errs <- err
						return
					}
				}
				if _, err := i.items.Load(ctx, key, t.origin.load); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-errs:
		return "", err
	default:
	}
	loads := t.origin.loads.Load() - before
	rate := 1 - float64(loads)/float64(t.size.reads)
	said := t.instances[0].store.HitRate().Total.Rate
	switch {
	case rate <= t.size.hitRate:
		return "", fmt.Errorf("%.1f %%, want more than %.0f %%", 100*rate, 100*t.size.hitRate)
	case said == nil || math.Abs(*said-rate) > 0.1:
		return "", fmt.Errorf("%.1f %% by the origin's count, but an instance reports %v", 100*rate, said)
	}
	return fmt.Sprintf(": %.1f %% of %d reads", 100*rate, t.size.reads), nil
}

// stampede lets everybody ask for the same missing value at once.
func (t *cacheTest) stampede(ctx context.Context) (string, error) {
	const key, callers = "hot", 50
	t.origin.slow(200 * time.Millisecond)
	defer t.origin.slow(0)
	before := t.origin.loads.Load()
	var group sync.WaitGroup
	var failed atomic.Int64
	for _, i := range t.instances {
		for range callers {
			group.Go(func() {
				if _, err := i.items.Load(ctx, key, t.origin.load); err != nil {
					failed.Add(1)
				}
			})
		}
	}
	group.Wait()
	loads := t.origin.loads.Load() - before
	return fmt.Sprintf(": %d callers on %d instances", callers*len(t.instances), len(t.instances)),
		want(loads == 1 && failed.Load() == 0, "%d loads, and %d callers failed", loads, failed.Load())
}

func (t *cacheTest) change(ctx context.Context) (string, error) {
	const key = "changing"
	return t.seen(ctx, []string{key}, func() error {
		t.origin.change(key)
		return t.instances[0].items.Delete(ctx, key)
	})
}

func (t *cacheTest) invalidation(ctx context.Context) (string, error) {
	all := keys(100)
	return t.seen(ctx, all, func() error {
		for _, key := range all {
			t.origin.change(key)
		}
		_, err := t.instances[0].store.Invalidate(ctx, "item:*")
		return err
	})
}

// seen makes every instance keep the values, does something, and measures how long any of them serves an old one.
func (t *cacheTest) seen(ctx context.Context, keys []string, do func() error) (string, error) {
	for _, i := range t.instances {
		for _, key := range keys {
			if _, err := i.items.Load(ctx, key, t.origin.load); err != nil {
				return "", err
			}
		}
	}
	if err := do(); err != nil {
		return "", err
	}
	began, last := time.Now(), time.Duration(0)
	for n, i := range t.instances {
		for _, key := range keys {
			for {
				got, err := i.items.Load(ctx, key, t.origin.load)
				if err != nil {
					return "", err
				}
				if got.Version >= t.origin.version(key) {
					break
				}
				if last = time.Since(began); last > t.size.seenWithin {
					return "", fmt.Errorf("instance %d serves an old value of %s after %v", n+1, key, last.Round(time.Millisecond))
				}
			}
		}
	}
	return fmt.Sprintf(": the last old value after %v", last.Round(time.Millisecond)), nil
}

// extension compares the TTLs of the entries in Redis before and after, and restores them.
func (t *cacheTest) extension(ctx context.Context) (string, error) {
	i := t.instances[0]
	if _, err := i.store.Warm(ctx); err != nil { // something to extend, whatever was invalidated before
		return "", err
	}
	neighbour := "neighbour-of-" + t.size.prefix(0)
	if err := i.rdb.Set(ctx, neighbour, "mine", 0).Err(); err != nil {
		return "", err
	}
	defer i.rdb.Del(context.WithoutCancel(ctx), neighbour)
	began := time.Now()
	before := map[string]time.Duration{}
	entries := append(t.entries(t.size.warm), neighbour)
	for _, key := range entries {
		before[key] = i.rdb.PTTL(ctx, key).Val()
	}
	report, err := i.store.ExtendTTLs(ctx, cache.Extension{Factor: 2})
	if err == nil {
		err = t.size.meanwhile(ctx, i.rdb, entries[0])
	}
	if err != nil {
		return "", err
	}
	longer := 0
	for _, key := range entries {
		after := i.rdb.PTTL(ctx, key).Val()
		switch {
		case key == neighbour && after != before[key]:
			return "", fmt.Errorf("a key of somebody else ends in %v now", after)
		case before[key] > 0 && after < before[key]-time.Since(began)-100*time.Millisecond:
			return "", fmt.Errorf("%s ended in %v, and now in %v", key, before[key], after)
		case after > before[key]+time.Minute:
			longer++
		}
	}
	_, err = i.store.RestoreTTLs(ctx)
	if err == nil {
		err = want(longer > 0, "no entry lives longer")
	}
	return fmt.Sprintf(": %d entries live longer", report.Changed), err
}

// slowRedis asks an instance whose Redis answers seconds late, for values that it does not keep.
func (t *cacheTest) slowRedis(ctx context.Context) (string, error) {
	i := t.instances[len(t.instances)-1]
	i.slow.delay(3 * time.Second)
	defer i.slow.heal()
	var worst time.Duration
	for range 10 {
		key := fmt.Sprint("cold-", rand.Int())
		began := time.Now()
		if _, err := i.items.Load(ctx, key, t.origin.load); err != nil {
			return "", err
		}
		if worst = max(worst, time.Since(began)); worst >= t.size.answerWithin {
			return "", fmt.Errorf("an answer took %v, want less than %v", worst.Round(time.Millisecond), t.size.answerWithin)
		}
	}
	return fmt.Sprintf(": the slowest answer in %v", worst.Round(time.Millisecond)), nil
}

// entries are the keys in Redis of the first n items.
func (t *cacheTest) entries(n int) (out []string) {
	for _, key := range keys(n) {
		out = append(out, t.size.prefix(0)+"item:"+key)
	}
	return out
}

func keys(n int) (out []string) {
	for k := range n {
		out = append(out, strconv.Itoa(k))
	}
	return out
}

// zipf returns a key below n, small ones far more often: the logarithm of the rank is uniform.
func zipf(n int) int { return min(n-1, int(math.Exp(rand.Float64()*math.Log(float64(n)+1)))-1) }
