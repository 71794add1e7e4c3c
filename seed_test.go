package scaleaware

import (
	"sync"
	"testing"
)

// sown is a Seed that counts.
type sown struct {
	mu    sync.Mutex
	calls int
	ts    Tokens
}

func (s *sown) Tokens() Tokens {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	return s.ts
}

func TestSeedIsLearnedWhenAskedFor(t *testing.T) {
	_, w := WithWatermark(t.Context())
	first, second := &sown{ts: Tokens{{1, 1, 7}}}, &sown{ts: Tokens{{2, 1, 3}, UnknownPosition(1)}}
	w.SeedFrom(first)
	w.SeedFrom(second)
	w.Raise(Token{1, 1, 5})
	if ts, err := w.gather(t.Context()); ts.String() != "1:1:0/5" || err != nil || first.calls != 0 {
		t.Fatalf("before anybody asked: %v, %v", ts, err)
	}
	before := w.Changes()
	var askers sync.WaitGroup
	for range 8 {
		askers.Go(func() {
			known, _ := w.Known()
			if known.For(1).IsZero() || known.For(2).LSN != 3 {
				t.Errorf("known %v", known)
			}
		})
	}
	askers.Wait()
	ts, _ := w.Written(t.Context())
	if ts.For(2).LSN != 3 || w.Changes() != before {
		t.Errorf("written %v, %d changes", ts, w.Changes()-before)
	}
	calls := first.calls
	_, _ = w.Written(t.Context())
	if first.calls != calls || calls == 0 {
		t.Errorf("learned %d times, then %d", calls, first.calls)
	}
	var none *Watermark
	none.SeedFrom(first)
	w.SeedFrom(nil)
}

func TestSeedCostsNoAllocation(t *testing.T) {
	s := &sown{}
	w := new(Watermark)
	if n := testing.AllocsPerRun(100, func() { w.seeds = nil; w.SeedFrom(s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
