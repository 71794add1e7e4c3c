package cachebench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/cache"
)

const (
	newsNote = "Two running stores with connections of their own stand for two processes. One entry at a time is kept in the second one, and removed in the first: from when Delete has returned, and from when " +
		"Invalidate(\"*\") is called, to the first look-up in the second that does not find it. Meanwhile others write entries of the same store, which both are told of; the rate is what this machine did."
	newsRate    = 20_000
	newsWriters = 16
)

func percentile(took []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

// noise writes entries at newsRate, or at what is possible, until stop, which returns the rate.
func noise(ctx context.Context, v *cache.View[lead]) (stop func() float64) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var done atomic.Int64
	begun := time.Now()
	for w := range newsWriters {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				due := begun.Add(time.Duration(n) * time.Second * newsWriters / newsRate)
				if wait := time.Until(due); wait > time.Millisecond {
					time.Sleep(wait)
				}
				if v.Set(ctx, fmt.Sprintf("noise-%d-%d", w, n%500), leadOf("0")) == nil {
					done.Add(1)
				}
			}
		})
	}
	return func() float64 {
		rate := float64(done.Load()) / time.Since(begun).Seconds()
		cancel()
		wg.Wait()
		return rate
	}
}

// seen returns how long after since the first look-up began that does not find id.
func seen(ctx context.Context, v *cache.View[lead], id string, since time.Time) (time.Duration, error) {
	for {
		begun := time.Now()
		switch _, err := v.Get(ctx, id); {
		case errors.Is(err, cache.ErrMiss):
			return max(0, begun.Sub(since)), nil
		case err != nil:
			return 0, err
		case begun.Sub(since) > patience:
			return 0, errors.New("what was removed is still there")
		}
		time.Sleep(20 * time.Microsecond)
	}
}

func (l *lab) news(ctx context.Context) ([]report.Row, error) {
	if err := l.servers(ctx); err != nil {
		return nil, err
	}
	deletes, sweeps, bulk := 5_000, 50, 1_000_000
	if l.quick {
		deletes, sweeps, bulk = 1_000, 40, 100_000
	}
	var views [2]*cache.View[lead]
	var stores [2]*cache.Store
	for i := range stores {
		s, err := l.storeAt("news:")
		if err != nil {
			return nil, err
		}
		defer running(ctx, s)()
		stores[i], views[i] = s, cache.Of[lead](s, "lead", cache.TTL(time.Hour), cache.InProcess(cache.Local{}))
	}
	there := views[1]
	prepare := func(id string) error {
		if err := views[0].Set(ctx, id, leadOf(id)); err != nil {
			return err
		}
		return eventually("the value is kept in the other process", func() bool {
			was := stores[1].HitRate().Views["lead"].ByResult["l1"]
			_, _ = there.Get(ctx, id)
			_, _ = there.Get(ctx, id)
			return stores[1].HitRate().Views["lead"].ByResult["l1"] > was
		})
	}
	if err := fill(ctx, views[0], ids(bulk)); err != nil {
		return nil, err
	}
	stop := noise(ctx, views[0])
	var took []time.Duration
	for n := range deletes {
		id := fmt.Sprintf("one-%d", n)
		if err := prepare(id); err != nil {
			return nil, err
		}
		if err := views[0].Delete(ctx, id); err != nil {
			return nil, err
		}
		d, err := seen(ctx, there, id, time.Now())
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	rate := stop()
	rows := []report.Row{tail(fmt.Sprintf("Delete, at %.0f writes/s", rate), took, 5*time.Millisecond)}

	stop = noise(ctx, views[0])
	took = nil
	for n := range sweeps {
		id := fmt.Sprintf("all-%d", n)
		if err := prepare(id); err != nil {
			return nil, err
		}
		ictx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		begun := time.Now()
		wg.Go(func() { _, _ = stores[0].Invalidate(ictx, "*") })
		d, err := seen(ctx, there, id, begun)
		cancel() // the sweep would take what the next ones are to meet
		wg.Wait()
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	rate = stop()
	return append(rows, tail(fmt.Sprintf("Invalidate(\"*\") of %d keys, at %.0f writes/s", bulk, rate), took, 50*time.Millisecond)), nil
}

func tail(what string, took []time.Duration, limit time.Duration) report.Row {
	p99 := percentile(took, 99)
	return report.Row{
		What: what, Goal: "p99 ≤ " + report.Since(limit),
		Ours: fmt.Sprintf("p50 %s, p99 %s, longest of %d %s", report.Since(percentile(took, 50)), report.Since(p99), len(took), report.Since(slices.Max(took))),
		Met:  report.AtMost(float64(p99), float64(limit)),
	}
}
