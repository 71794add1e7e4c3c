package simulate

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/cache"
)

// breaker lets one or two processes look up a key while Redis fails for each of them at times. Within an outage the sixth and
// every further call is made a quarter of a second after the last failed one at the earliest, and a look-up that makes none takes
// no time; a second after the outage all look-ups find the key again; without a fault there is no look-up that makes no call.
func breaker(w *world) {
	const (
		lasts   = 12 * time.Second
		budget  = 250 * time.Millisecond // the default RedisTimeout
		probe   = 250 * time.Millisecond
		failing = 5 // calls open the breaker
	)
	w.slowest, w.late = w.between(0, 30*time.Millisecond), w.between(0, 30*time.Millisecond)
	names := []string{"process 0", "process 1"}[:1+w.IntN(2)]
	for _, name := range names {
		for at := 2 * time.Second; at < lasts-4*time.Second; at += w.between(2*time.Second, 5*time.Second) {
			f := fault{name, at, at + w.between(100*time.Millisecond, 4*time.Second), []faultKind{lostRequest, lostReply, closedBefore, closedAfter}[w.IntN(4)], 100}
			w.faults = append(w.faults, f)
			w.note("planned: %s of %s from %v until %v", f.kind, name, f.from, f.until)
			at = f.until
		}
	}
	var lock sync.Mutex
	sent := map[string]int{}
	w.sent = func(process, message string) {
		if strings.HasPrefix(message, "get app:v:") {
			lock.Lock()
			defer lock.Unlock()
			sent[process]++
		}
	}
	calls := func(process string) int { lock.Lock(); defer lock.Unlock(); return sent[process] }

	ctx, stop := context.WithCancel(context.Background())
	var running, lookers sync.WaitGroup
	defer running.Wait()
	defer stop()
	for _, name := range names {
		store, err := cache.New(w.client(name), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		view := cache.Of[int](store, "v", cache.TTL(time.Hour), cache.Jitter(0))
		running.Go(func() { _ = store.Run(ctx) })
		time.Sleep(w.between(100*time.Millisecond, 500*time.Millisecond))
		if err := view.Set(ctx, "k", 1); err != nil {
			w.t.Fatal(err)
		}
		lookers.Go(func() {
			failed, last := 0, time.Duration(0) // in a row, and when the last one ended
			for w.now() < lasts {
				w.work(millis(5 + w.draw(name, w.now())%60))
				before, began := calls(name), w.now()
				_, err := view.Get(ctx, "k")
				made, took := calls(name)-before, w.now()-began
				w.note("%s looks with %d calls: %s", name, made, outcome(err))
				out := w.outage(name, began, w.now())
				switch {
				case made == 0 && took > 0:
					w.violated("%s made no call, and took %v", name, took)
				case made == 0 && out.from == never:
					w.violated("%s made no call while all was well", name)
				case made > 0 && failed >= failing && began < last+probe-grid:
					w.violated("%s calls after %d failures %v after the last", name, failed, began-last)
				case took > budget+2*grid:
					w.violated("%s looked for %v", name, took)
				case err != nil && out.from == never:
					w.violated("%s does not find the key, while all is well: %v", name, err)
				}
				switch {
				case err == nil:
					failed = 0
				case made > 0 && errors.Is(err, cache.ErrMiss):
					failed, last = failed+1, w.now()
				}
			}
		})
	}
	lookers.Wait()
	w.end()
}

const never = time.Duration(-1)

// outage is the fault that a process has between from and until, or had in the second before; one that is from never is none.
func (w *world) outage(process string, from, until time.Duration) fault {
	for _, f := range w.faults {
		if f.process == process && f.from <= until && f.until+time.Second > from {
			return f
		}
	}
	return fault{from: never}
}
