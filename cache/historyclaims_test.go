package cache

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// joining is the context of a caller who is counted when it waits for a load, its own or another's.
type joining struct {
	context.Context
	once sync.Once
	n    *atomic.Int64
}

func (j *joining) Done() <-chan struct{} {
	if pc, _, _, ok := runtime.Caller(1); ok && strings.HasSuffix(runtime.FuncForPC(pc).Name(), "flight[...]).wait") {
		j.once.Do(func() { j.n.Add(1) })
	}
	return j.Context.Done()
}

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
		before := w.begins.n.Load()
		all.Go(func() { w.sayBegins(ctx, r, before) })
		for range w.Callers {
			all.Go(func() {
				got, err := w.gated.Load(&joining{Context: ctx, n: &r.joined}, fmt.Sprint(n), func(ctx context.Context, _ string) (int64, error) {
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

// beginTally counts the loads that Redis has let begin, or told of another's.
type beginTally struct{ n atomic.Int64 }

func (b *beginTally) note(cmds ...redis.Cmder) {
	for _, cmd := range cmds {
		if args := cmd.Args(); len(args) > 1 && (args[1] == beginScript.one.Hash() || args[1] == scriptText(beginScript.one)) && cmd.Err() == nil {
			b.n.Add(1)
		}
	}
}

func (b *beginTally) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b *beginTally) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { err := next(ctx, cmd); b.note(cmd); return err }
}

func (b *beginTally) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		b.note(cmds...)
		return err
	}
}

// sayBegins tells until the round is over how often the process has begun a load, or has been told of another's.
func (w *worker) sayBegins(ctx context.Context, r *round, before int64) {
	for r.release.Load() == 0 {
		r.begins[w.Number].Store(w.begins.n.Load() - before)
		if w.board.stop.Load() != 0 || sleep(ctx, time.Millisecond) != nil {
			return
		}
	}
}

// asking counts the processes that have begun since, or have been told that another has.
func (r *round) asking(since [boardProcs]int64) (n int) {
	for i := range r.begins {
		if r.begins[i].Load() > since[i] {
			n++
		}
	}
	return n
}

// gate opens a round, does something while the loader stands in it and everybody waits for that, and returns how often was
// loaded.
func (h *historyRun) gate(t *testing.T, n int, held func(holder int)) (loads int64) {
	t.Helper()
	r := &h.board.rounds[n]
	want := int64(h.callers * len(h.workers))
	r.open.Store(1)
	eventually(t, fmt.Sprintf("all callers of round %d wait for one loader", n), func() bool {
		return r.joined.Load() == want && r.loads.Load() > 0 && r.asking([boardProcs]int64{}) == len(h.workers)
	})
	if held != nil {
		held(int(r.holder.Load()) - 1)
		want -= int64(h.callers)
	}
	r.release.Store(1)
	eventually(t, fmt.Sprintf("the callers of round %d", n), func() bool { return r.answered.Load() >= want })
	r.release.Store(2)
	if n := r.wrong.Load(); n > 0 {
		t.Errorf("%d callers got no or a wrong value", n)
	}
	return r.loads.Load()
}

// A key is loaded once by four processes with a thousand callers each, and once more when who loads it is killed. Redis gets
// time enough: without its answer everybody loads, and a busy machine is no subject here.
func TestHistoryOneLoadForAllProcesses(t *testing.T) {
	h := startHistory(t, 4, workerConfig{Callers: 1000, RedisTimeout: 10 * time.Second})
	for n := range 4 {
		if loads := h.gate(t, n, nil); loads != 1 {
			t.Errorf("round %d: loaded %d times", n, loads)
		}
	}
	loads := h.gate(t, 4, func(holder int) {
		r := &h.board.rounds[4]
		h.workers[holder].kill()
		killed := time.Now()
		eventually(t, "somebody else to load", func() bool { return r.loads.Load() > 1 })
		if took := time.Since(killed); took > claimTTL+time.Second {
			t.Errorf("the claim of the dead was waited for %v", took)
		} else {
			t.Logf("loaded again %v after who loaded was killed", took.Round(time.Millisecond))
		}
		var before [boardProcs]int64
		for i := range before {
			before[i] = r.begins[i].Load()
		}
		eventually(t, "the others to wait for that", func() bool { return r.asking(before) >= 2-int(r.loads.Load()-2) })
	})
	if loads != 2 {
		t.Errorf("loaded %d times around a death", loads)
	}
}
