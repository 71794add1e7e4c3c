package cachebench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/plot"
	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/redisclient"
)

// Curves measures how costs grow with callers and keys.
func Curves(ctx context.Context, o *Options) (charts []plot.Chart, err error) {
	l := &lab{quick: o.Quick}
	defer func() { err = errors.Join(err, l.close()) }()
	for _, draw := range []func(context.Context) (plot.Chart, error){l.insideCurve, l.redisCurve, l.barrierCurve} {
		c, err := draw(ctx)
		if err != nil {
			return nil, err
		}
		charts = append(charts, c)
	}
	return charts, nil
}

// rates are operations a second by callers, of contenders that do n operations in all at a time.
func (l *lab) rates(ctx context.Context, callers []int, n func(callers int) int, contenders func(callers int) []pairs.Contender) (series []plot.Series, err error) {
	for _, k := range callers {
		results, err := l.run(ctx, contenders(k)...)
		if err != nil {
			return nil, err
		}
		for i, r := range results {
			if i == len(series) {
				series = append(series, plot.Series{Name: r.Name})
			}
			series[i].Points = append(series[i].Points, plot.Point{X: float64(k), Y: 1e9 * float64(n(k)) / r.Time().Median})
		}
	}
	return series, nil
}

func (l *lab) insideCurve(ctx context.Context) (c plot.Chart, err error) {
	in, stop, err := l.insides(ctx)
	if err != nil {
		return c, err
	}
	defer stop()
	c = plot.Chart{Name: "curve-inside", Title: "Hits in the process", X: "goroutines that look up at once", Y: "look-ups a second"}
	const all = 64 * insideBatch // however many do them: what the CPU has cached matters as much as who asks
	c.Series, err = l.rates(ctx, []int{1, 2, 4, 8, 16, 32, 64}, func(int) int { return all },
		func(callers int) []pairs.Contender { return in.contenders(callers, all/callers) })
	return c, err
}

func (l *lab) redisCurve(ctx context.Context) (c plot.Chart, err error) {
	r, _, _, err := l.readers(ctx)
	if err != nil {
		return c, err
	}
	defer r.end()
	const reads = 20
	c = plot.Chart{Name: "curve-redis", Title: "Values that only Redis has", X: "callers at once", Y: "reads a second"}
	n := func(callers int) int {
		if callers == 1 {
			return 1
		}
		return callers * reads
	}
	c.Series, err = l.rates(ctx, []int{1, 4, 16, 64, 256}, n, func(callers int) (some []pairs.Contender) {
		for _, contender := range r.contenders(callers, reads) {
			if contender.Name != "raw again" {
				some = append(some, contender)
			}
		}
		return some
	})
	return c, err
}

// barrierCurve takes the time until nobody gets an old entry any more, and beside it the time that deleting all takes.
func (l *lab) barrierCurve(ctx context.Context) (c plot.Chart, err error) {
	c = plot.Chart{Name: "curve-barrier", Title: "Invalidating everything", X: "keys", Y: "ms until no old value is served"}
	ours, peer := plot.Series{Name: `Invalidate("*")`}, plot.Series{Name: "SCAN and UNLINK"}
	for _, n := range []int{1_000, 10_000, 100_000} {
		if l.quick && n > 10_000 {
			break
		}
		var mine, theirs []float64
		for range 5 {
			if err := l.servers(ctx); err != nil {
				return c, err
			}
			barrier, err := l.barrier(ctx, n)
			if err != nil {
				return c, err
			}
			swept, err := l.scan(ctx, n)
			if err != nil {
				return c, err
			}
			mine, theirs = append(mine, barrier), append(theirs, swept)
		}
		ours.Points = append(ours.Points, plot.Point{X: float64(n), Y: pairs.SpreadOf(mine).Median})
		peer.Points = append(peer.Points, plot.Point{X: float64(n), Y: pairs.SpreadOf(theirs).Median})
	}
	c.Series = []plot.Series{ours, peer}
	return c, nil
}

func (l *lab) barrier(ctx context.Context, keys int) (ms float64, err error) {
	s, err := l.store()
	if err != nil {
		return 0, err
	}
	defer running(ctx, s)()
	view := cache.Of[lead](s, "lead", cache.TTL(time.Hour))
	all := ids(keys)
	if err := fill(ctx, view, all); err != nil {
		return 0, err
	}
	sweeping, cancel := context.WithCancel(ctx)
	var sweep sync.WaitGroup
	defer func() { cancel(); sweep.Wait() }()
	begun := time.Now()
	sweep.Go(func() { _, _ = s.Invalidate(sweeping, "*") })
	for time.Since(begun) < patience {
		if _, err := view.Get(ctx, all[keys-1]); errors.Is(err, cache.ErrMiss) {
			return float64(time.Since(begun)) / float64(time.Millisecond), nil
		}
	}
	return 0, fmt.Errorf("one of %d keys is still there", keys)
}

// scan deletes as many keys as is usually done: by SCAN on each master, in pipelines.
func (l *lab) scan(ctx context.Context, keys int) (ms float64, err error) {
	pipe := l.rdb.Pipeline()
	for i, id := range ids(keys) {
		pipe.Set(ctx, "peer:"+id, "a value", 0)
		if i%1000 == 999 {
			if _, err := pipe.Exec(ctx); err != nil {
				return 0, err
			}
		}
	}
	begun := time.Now()
	err = redisclient.EachMaster(ctx, l.rdb, func(ctx context.Context, master *redis.Client) error {
		for cursor := uint64(0); ; {
			found, next, err := master.Scan(ctx, cursor, "peer:*", 1000).Result()
			if err != nil {
				return err
			}
			pipe := master.Pipeline()
			for _, key := range found {
				pipe.Unlink(ctx, key)
			}
			if _, err := pipe.Exec(ctx); err != nil {
				return err
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	})
	return float64(time.Since(begun)) / float64(time.Millisecond), err
}
