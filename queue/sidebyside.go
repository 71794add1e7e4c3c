package queue

import (
	"context"
	"sync"
	"time"
)

const (
	// askWithin bounds how long a queue is waited for that a silent master has. It is less than the console waits for its list.
	askWithin = time.Second
	// askAllWithin bounds how long all are waited for.
	askAllWithin = 10 * time.Second
	// askAtOnce is how many are asked at once: thousands would wait for each other's connections until the time of all is up.
	askAtOnce = 256
)

// sideBySide calls ask for each of n queues, so that those which a silent master has keep the others not waiting. They go in groups. Each
// has as long as one queue is waited for, however many went before it, unless that is too long in all: then what earlier groups have left
// of that is shared out. A quarter of the time until ctx's deadline is left to the caller.
func sideBySide(ctx context.Context, n int, ask func(ctx context.Context, i int)) {
	within := askAllWithin
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline)*3/4)
	}
	end := time.Now().Add(within)
	for first := 0; first < n; first += askAtOnce {
		groups := (n - first + askAtOnce - 1) / askAtOnce
		ctx, cancel := context.WithTimeout(ctx, min(askWithin, time.Until(end)/time.Duration(groups)))
		var asking sync.WaitGroup
		for i := first; i < min(first+askAtOnce, n); i++ {
			asking.Go(func() { ask(ctx, i) })
		}
		asking.Wait()
		cancel()
	}
}
