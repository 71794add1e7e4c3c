package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// answerGates lets many callers ask for the key of each round when its gate opens.
func (w *worker) answerGates(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for n := range w.board.rounds {
		r := &w.board.rounds[n]
		for r.open.Load() == 0 {
			if w.board.stop.Load() != 0 || sleep(ctx, time.Millisecond) != nil {
				return
			}
		}
		if r.release.Load() == 2 {
			continue // over before this process began
		}
		for range w.Callers {
			all.Go(func() {
				got, err := w.gated.Load(ctx, fmt.Sprint(n), func(ctx context.Context, _ string) (int64, error) {
					r.loads.Add(1)
					r.holder.Store(int64(w.Number) + 1)
					for r.release.Load() == 0 {
						if err := sleep(ctx, time.Millisecond); err != nil {
							return 0, err
						}
					}
					return int64(n), nil
				})
				if err != nil || got != int64(n) {
					r.wrong.Add(1)
				}
				r.answered.Add(1)
			})
		}
	}
}

// gate opens a round, does something while the loader stands in it, and returns how often was loaded.
func (h *historyRun) gate(t *testing.T, n int, held func(holder int)) (loads int64) {
	t.Helper()
	r := &h.board.rounds[n]
	want := int64(h.callers * len(h.workers))
	r.open.Store(1)
	eventually(t, "a loader", func() bool { return r.holder.Load() != 0 })
	time.Sleep(50 * time.Millisecond) // for the others to come; a load too many is seen whenever they do
	if held != nil {
		held(int(r.holder.Load()) - 1)
		want -= int64(h.callers)
	}
	r.release.Store(1)
	eventually(t, fmt.Sprintf("the callers of round %d (%d of %d)", n, r.answered.Load(), want), func() bool { return r.answered.Load() >= want })
	r.release.Store(2)
	if n := r.wrong.Load(); n > 0 {
		t.Errorf("%d callers got no or a wrong value", n)
	}
	return r.loads.Load()
}

// A key is loaded once by four processes with many callers each, and once more when who loads it is killed. Redis gets
// time enough: without its answer everybody loads, and a busy machine is no subject here.
func TestHistoryOneLoadForAllProcesses(t *testing.T) {
	h := startHistory(t, 4, workerConfig{Callers: 100, RedisTimeout: 10 * time.Second})
	for n := range 8 {
		if loads := h.gate(t, n, nil); loads != 1 {
			t.Errorf("round %d: loaded %d times", n, loads)
		}
	}
	loads := h.gate(t, 8, func(holder int) {
		was := h.board.rounds[8].loads.Load()
		h.workers[holder].kill()
		killed := time.Now()
		eventually(t, "somebody else to load", func() bool { return h.board.rounds[8].loads.Load() > was })
		if took := time.Since(killed); took > claimTTL+time.Second {
			t.Errorf("the claim of the dead was waited for %v", took)
		} else {
			t.Logf("loaded again %v after who loaded was killed", took.Round(time.Millisecond))
		}
		time.Sleep(100 * time.Millisecond) // for one too many
	})
	if loads != 2 {
		t.Errorf("loaded %d times around a death", loads)
	}
}
