package cachebench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/cache"
)

const (
	newsNote = "One entry at a time is kept in a second process, and removed in the first: from when Delete has returned, and from when " +
		"Invalidate(\"*\") is called, to the first look-up in the second that does not find it. Meanwhile the first one writes entries of the same store, which both are told of; the rate is what this machine did."
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

// newsView is what both processes have of a store.
func newsView(s *cache.Store) *cache.View[lead] {
	return cache.Of[lead](s, "lead", cache.TTL(time.Hour), cache.InProcess(cache.Local{}))
}

func (l *lab) news(ctx context.Context) ([]report.Row, error) {
	if err := l.servers(ctx); err != nil {
		return nil, err
	}
	deletes, sweeps, bulk := 5_000, 50, 1_000_000
	if l.quick {
		deletes, sweeps, bulk = 1_000, 40, 100_000
	}
	const prefix = "news:"
	s, err := l.storeAt(prefix)
	if err != nil {
		return nil, err
	}
	defer running(ctx, s)()
	here := newsView(s)
	there, err := l.observer(prefix)
	if err != nil {
		return nil, err
	}
	defer there.close()
	prepare := func(id string) error {
		if err := here.Set(ctx, id, leadOf(id)); err != nil {
			return err
		}
		return there.keep(id)
	}
	if err := fill(ctx, here, ids(bulk)); err != nil {
		return nil, err
	}
	stop := noise(ctx, here)
	var took []time.Duration
	for n := range deletes {
		id := fmt.Sprintf("one-%d", n)
		if err := prepare(id); err != nil {
			return nil, err
		}
		if err := here.Delete(ctx, id); err != nil {
			return nil, err
		}
		d, err := there.gone(time.Now())
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	rate := stop()
	rows := []report.Row{tail(fmt.Sprintf("Delete, at %.0f writes/s", rate), took, 5*time.Millisecond)}

	stop = noise(ctx, here)
	took = nil
	for n := range sweeps {
		id := fmt.Sprintf("all-%d", n)
		if err := prepare(id); err != nil {
			return nil, err
		}
		ictx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		begun := time.Now()
		wg.Go(func() { _, _ = s.Invalidate(ictx, "*") })
		d, err := there.gone(begun)
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
