package pairs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"
)

// Contender is one of the operations to compare.
type Contender struct {
	Name string
	Op   func(ctx context.Context) error
}

// Options say how long to measure.
type Options struct {
	// Total is how long all rounds together last, about. Zero means 3 s.
	Total time.Duration
	// Turn is how long the fastest contender runs in one round, about. All run the same number of operations, at least
	// one, after one that is not counted: a server that has just been left alone answers the first one late. Zero means
	// 5 ms.
	Turn time.Duration
	// MinRounds are run also when Total has passed. Zero means 20.
	MinRounds int
	// AllocRuns is how many operations allocations are counted over; negative means that they are not. Zero means 1280,
	// fewer when those would take longer than half a second.
	AllocRuns int
}

func (o *Options) withDefaults() Options {
	var c Options
	if o != nil {
		c = *o
	}
	if c.Total <= 0 {
		c.Total = 3 * time.Second
	}
	if c.Turn <= 0 {
		c.Turn = 5 * time.Millisecond
	}
	if c.MinRounds <= 0 {
		c.MinRounds = 20
	}
	if c.AllocRuns == 0 {
		c.AllocRuns = 1280
	}
	return c
}

// Result is what one contender needed.
type Result struct {
	Name string
	// Rounds is the time of one operation in ns, round by round.
	Rounds []float64
	// Allocs and Bytes are allocations of one operation, in the whole process; negative when they were not counted.
	Allocs, Bytes float64
}

const (
	warmUp = 200 * time.Millisecond
	// Allocations are counted up to allocRepeats times, at least twice, and not again after allocTime.
	allocRepeats = 5
	allocTime    = time.Second
)

// Run compares the contenders. Results come in their order. The first error of an operation ends it. Nil options are legal.
//
// Operations get context.Background(): watching the end of a context costs time and allocations that are not theirs, and so
// does looking a value up in one from context.WithoutCancel. ctx is looked at between rounds.
func Run(ctx context.Context, opts *Options, contenders ...Contender) ([]Result, error) {
	o := opts.withDefaults()
	if len(contenders) == 0 {
		return nil, errors.New("pairs: nothing to compare, give contenders")
	}
	endless := context.Background()
	results := make([]Result, len(contenders))
	per := make([]time.Duration, len(contenders))
	for i, c := range contenders {
		results[i] = Result{Name: c.Name, Allocs: -1, Bytes: -1}
		var err error
		if per[i], err = c.warm(endless); err != nil {
			return nil, err
		}
	}
	n := max(1, int(o.Turn/slices.Min(per)))
	runtime.GC()
	begun := time.Now()
	for round := 0; round < o.MinRounds || time.Since(begun) < o.Total; round++ {
		for _, i := range order(round, len(contenders)) {
			if _, err := contenders[i].times(endless, 1); err != nil {
				return nil, err
			}
			took, err := contenders[i].times(endless, n)
			if err != nil {
				return nil, err
			}
			results[i].Rounds = append(results[i].Rounds, float64(took)/float64(n))
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("pairs: %w", err)
		}
	}
	if o.AllocRuns < 0 {
		return results, nil
	}
	for i, c := range contenders {
		runs := min(o.AllocRuns, max(10, int(allocTime/2/per[i])))
		var err error
		if results[i].Allocs, results[i].Bytes, err = c.allocations(endless, runs); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// order is by turns for two, and by chance for more, so that nobody always comes after the same one: what that leaves behind, a
// server process that has slept or a cold cache, costs whoever is next.
func order(round, n int) []int {
	if n > 2 {
		return rand.Perm(n)
	}
	return []int{round % n, (round + 1) % n}[:n]
}

// warm runs c for a while and returns how long the fastest operation took: one that was held up says nothing.
func (c Contender) warm(ctx context.Context) (time.Duration, error) {
	fastest := time.Duration(math.MaxInt64)
	begun := time.Now()
	for n := 0; n < 3 || time.Since(begun) < warmUp; n++ {
		took, err := c.times(ctx, 1)
		if err != nil {
			return 0, err
		}
		fastest = min(fastest, took)
	}
	return max(1, fastest), nil
}

func (c Contender) times(ctx context.Context, n int) (time.Duration, error) {
	begun := time.Now()
	for range n {
		if err := c.Op(ctx); err != nil {
			return 0, fmt.Errorf("pairs: %s: %w", c.Name, err)
		}
	}
	return time.Since(begun), nil
}

// allocations counts over runs operations, several times. What happens in the background only adds, so the lowest count is
// the best.
func (c Contender) allocations(ctx context.Context, runs int) (allocs, bytes float64, err error) {
	begun := time.Now()
	for repeat := range allocRepeats {
		if repeat >= 2 && time.Since(begun) > allocTime {
			break
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := c.times(ctx, runs); err != nil {
			return 0, 0, err
		}
		runtime.ReadMemStats(&after)
		a := float64(after.Mallocs-before.Mallocs) / float64(runs)
		b := float64(after.TotalAlloc-before.TotalAlloc) / float64(runs)
		if repeat == 0 || a < allocs {
			allocs = a
		}
		if repeat == 0 || b < bytes {
			bytes = b
		}
	}
	return allocs, bytes, nil
}
