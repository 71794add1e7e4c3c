package cache

import (
	"sync"
	"testing"
	"time"
)

func TestWindowForgets(t *testing.T) {
	w := newWindow(10 * time.Second)
	now := time.Unix(1700000000, 0)
	for range 3 {
		w.add(now, resultL2, 1)
	}
	w.add(now.Add(5*time.Second), resultMiss, 1)
	for _, c := range []struct {
		after      time.Duration
		l2, misses int64
	}{{5 * time.Second, 3, 1}, {9 * time.Second, 3, 1}, {10 * time.Second, 0, 1}, {14 * time.Second, 0, 1}, {15 * time.Second, 0, 0}, {time.Hour, 0, 0}} {
		got := w.sum(now.Add(c.after))
		if got[resultL2] != c.l2 || got[resultMiss] != c.misses {
			t.Errorf("after %v: %v", c.after, got)
		}
	}
	w.add(now.Add(10*time.Second), resultMiss, 1) // takes the first slot again
	if got := w.sum(now.Add(10 * time.Second)); got[resultL2] != 0 || got[resultMiss] != 2 {
		t.Errorf("a slot that is used again keeps old counts: %v", got)
	}
}

func TestWindowCountsAll(t *testing.T) {
	w, now := newWindow(10*time.Second), time.Unix(1700000000, 0)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				w.add(now, resultL2, 1)
			}
		})
	}
	wg.Wait()
	if got := w.sum(now); got[resultL2] != 8000 {
		t.Errorf("got %v", got)
	}
}

func TestHitsOf(t *testing.T) {
	if h := hitsOf([results]int64{}); h.Rate != nil {
		t.Errorf("a rate of %v out of no look-ups", *h.Rate)
	}
	h := hitsOf([results]int64{resultL2: 6, resultNegative: 2, resultMiss: 2, resultLoad: 3})
	if h.Lookups != 10 || *h.Rate != 0.8 || h.ByResult["l2"] != 6 || h.Loaded != 3 {
		t.Errorf("got %+v", h)
	}
}

func BenchmarkWindow(b *testing.B) {
	w := newWindow(5 * time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		w.add(time.Now(), resultL2, 1)
	}
}
