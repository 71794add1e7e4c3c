package sessionbench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/redisstore"
	"github.com/scaleaware/scaleaware/redisclient"
)

const propagationNote = "From the call of Enable to the moment when an instance refuses writes, and from that of Disable to when it allows them: each instance in each of the rounds is one measurement. " +
	"All instances are in this process, each with a client and a subscription of its own, on one Redis: two cores do what as many machines would do at once, so this says more than each of them would wait. Instances of one change are slow together, so the 99th percentile is that of the slowest changes; that of the median change is told beside it."

// propagation measures how long a change takes to be obeyed everywhere.
func (l *lab) propagation(ctx context.Context) (rows []report.Row, err error) {
	if err := l.open(ctx); err != nil {
		return nil, err
	}
	rounds := 100
	if l.quick {
		rounds = 10
	}
	for _, c := range []struct {
		instances int
		limit     time.Duration
	}{{50, 10 * time.Millisecond}, {200, 25 * time.Millisecond}} {
		on, off, err := l.spread(ctx, c.instances, rounds)
		if err != nil {
			return nil, err
		}
		for _, way := range []struct {
			what string
			took []time.Duration
		}{{"refuse writes", on}, {"allow writes", off}} {
			typical := typical(way.took, c.instances)
			slices.Sort(way.took)
			p99 := way.took[len(way.took)*99/100]
			rows = append(rows, report.Row{
				What: fmt.Sprintf("%d instances %s", c.instances, way.what), Goal: "p99 ≤ " + report.Since(c.limit),
				Ours: fmt.Sprintf("p50 %s, p99 %s (of the median change %s), longest of %d %s", report.Since(way.took[len(way.took)/2]), report.Since(p99), report.Since(typical), len(way.took), report.Since(way.took[len(way.took)-1])),
				Met:  report.AtMost(p99.Seconds(), c.limit.Seconds()),
			})
		}
	}
	return rows, nil
}

// typical is the 99th percentile of the median change.
func typical(took []time.Duration, instances int) time.Duration {
	var each []time.Duration
	for change := range slices.Chunk(took, instances) {
		each = append(each, slices.Sorted(slices.Values(change))[instances*99/100])
	}
	slices.Sort(each)
	return each[len(each)/2]
}

// spread toggles the mode and sees each instance come to obey it.
func (l *lab) spread(ctx context.Context, instances, rounds int) (on, off []time.Duration, err error) {
	switches, stop, err := l.fleet(ctx, fmt.Sprintf("spread%d:", instances), instances)
	if err != nil {
		return nil, nil, err
	}
	defer stop()
	for range rounds {
		for _, refuse := range []bool{true, false} {
			took, err := obeyed(ctx, switches, refuse)
			if err != nil {
				return nil, nil, err
			}
			if refuse {
				on = append(on, took...)
			} else {
				off = append(off, took...)
			}
		}
	}
	return on, off, nil
}

// obeyed makes the first of the switches change the mode and returns how long each of them took to obey.
func obeyed(ctx context.Context, switches []*readonly.Switch, refuse bool) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	at := make([]time.Time, len(switches))
	var waiting, group sync.WaitGroup
	waiting.Add(len(switches))
	for i, s := range switches {
		group.Go(func() {
			ready := sync.OnceFunc(waiting.Done)
			defer ready()
			for {
				changed := s.Changed()
				if (s.AllowWrite(ctx) != nil) == refuse {
					at[i] = time.Now()
					return
				}
				ready()
				select {
				case <-changed:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	waiting.Wait()
	begun := time.Now()
	var err error
	if refuse {
		_, err = switches[0].Enable(ctx, readonly.Change{Reason: "bench", Actor: "bench"})
	} else {
		_, err = switches[0].Disable(ctx, "bench")
	}
	if err != nil {
		cancel()
	}
	group.Wait()
	took := make([]time.Duration, len(at))
	for i := range at {
		if at[i].IsZero() && err == nil {
			err = fmt.Errorf("instance %d does not obey: %w", i, ctx.Err())
		}
		took[i] = at[i].Sub(begun)
	}
	return took, err
}

// fleet starts as many instances in this process, each with a connection of its own, and waits until they allow writes.
func (l *lab) fleet(ctx context.Context, prefix string, instances int) (switches []*readonly.Switch, stop func(), err error) {
	running, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	var closers []func() error
	stop = func() {
		cancel()
		group.Wait()
		for _, c := range closers {
			_ = c()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	for n := range instances {
		rdb := redisclient.New(redisclient.Options(l.server.Addrs()...))
		closers = append(closers, rdb.Close)
		store, err := redisstore.New(rdb, &redisstore.Options{Prefix: prefix})
		if err != nil {
			return nil, stop, err
		}
		s, err := readonly.New(store, &readonly.Options{Instance: fmt.Sprintf("instance-%d", n)})
		if err != nil {
			return nil, stop, err
		}
		group.Go(func() { _ = s.Run(running) })
		switches = append(switches, s)
	}
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		r, err := switches[0].Report(ctx)
		if err == nil && !r.Enabled && r.Instances == instances && r.Acknowledged == instances {
			return switches, stop, nil
		}
		if time.Since(begun) > time.Minute {
			return nil, stop, fmt.Errorf("%d of %d instances, %d acknowledged: %w", r.Instances, instances, r.Acknowledged, err)
		}
	}
}
