package cache

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// result is how a look-up ended.
type result int

const (
	resultL2 result = iota // in Redis
	resultNegative
	resultMiss
	resultL1    // in the process
	resultStale // in either, past its TTL
	resultLoad  // no look-up: the origin has answered
	results
)

var resultNames = [results]string{"l2", "negative", "miss", "l1", "stale", "load"}

// HitRate is the share of look-ups that the cache answered, counted by the processes themselves: a Redis server's own
// counters also count sessions, queues and scripts.
type HitRate struct {
	// Scope says whose look-ups were counted: "process" or "fleet".
	Scope string `json:"scope"`
	// Processes is how many were.
	Processes int `json:"processes"`
	// Degraded says why the scope is smaller than what was asked for.
	Degraded string `json:"degraded,omitempty"`
	// WindowSeconds is how far back the report looks.
	WindowSeconds float64 `json:"window_seconds"`
	// Total is over all views.
	Total Hits `json:"total"`
	// Views is by view.
	Views map[string]Hits `json:"views"`
}

// Hits are the look-ups of one view in the window.
type Hits struct {
	// Lookups is the number of look-ups, one a key.
	Lookups int64 `json:"lookups"`
	// ByResult splits them: l1 (found in the process), l2 (found in Redis), stale (found past its TTL, and served), negative
	// (the origin has no such value, known from the cache), miss.
	ByResult map[string]int64 `json:"by_result"`
	// Loaded is how often the origin has answered for a key: for look-ups that missed, each load for all who waited for it, for
	// refreshes and for warmings.
	Loaded int64 `json:"loaded"`
	// Rate is hits, negative ones included, by look-ups. Nil when there were none.
	Rate *float64 `json:"rate"`
}

const windowSlots = 10

// window counts results over the last span, in slots that are cleared when their time comes again.
type window struct {
	slot  time.Duration
	mu    sync.Mutex // clearing only
	slots [windowSlots]windowSlot
}

type windowSlot struct {
	epoch  atomic.Int64
	counts [results]atomic.Int64
}

func newWindow(span time.Duration) *window { return &window{slot: span / windowSlots} }

func (w *window) add(now time.Time, r result, n int64) {
	epoch := now.UnixNano() / int64(w.slot)
	s := &w.slots[epoch%windowSlots]
	if s.epoch.Load() != epoch {
		w.clear(s, epoch)
	}
	s.counts[r].Add(n)
}

func (w *window) clear(s *windowSlot, epoch int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.epoch.Load() == epoch {
		return
	}
	for i := range s.counts {
		s.counts[i].Store(0)
	}
	s.epoch.Store(epoch)
}

func (w *window) sum(now time.Time) (counts [results]int64) {
	epoch := now.UnixNano() / int64(w.slot)
	for i := range w.slots {
		if s := &w.slots[i]; s.epoch.Load() > epoch-windowSlots {
			for r := range counts {
				counts[r] += s.counts[r].Load()
			}
		}
	}
	return counts
}

// stripes count what is too frequent for one counter.
type stripes [16]struct {
	n atomic.Int64
	_ [120]byte // processors fetch two lines at a time
}

func (s *stripes) add(n int64) { s[here()%uint32(len(s))].n.Add(n) }

// here is a number that differs between goroutines which run at the same time, mostly: it says where their stacks lie. A stripe
// that several processors write to goes back and forth between their caches, which takes longer than all the rest of a hit.
func here() uint32 {
	var onStack byte
	at := uintptr(unsafe.Pointer(&onStack)) // #nosec G103 -- looked at, never used as an address
	return uint32(at>>11) * 0x9e3779b1 >> 16
}

// take returns what was counted since it was last called.
func (s *stripes) take() (n int64) {
	for i := range s {
		n += s[i].n.Swap(0)
	}
	return n
}

// count counts look-ups that ended alike.
func (v *viewState) count(r result, n int64) {
	if r == resultL1 {
		v.local.add(n)
		return
	}
	v.window.add(time.Now(), r, n)
	v.looked[r].Add(float64(n))
}

// tally counts look-ups that were made together.
type tally [results]int64

func (v *viewState) countAll(t *tally) {
	for r, n := range t {
		if n > 0 {
			v.count(result(r), n)
		}
	}
}

// settle brings the hits in the process to where the others are.
func (v *viewState) settle() {
	if n := v.local.take(); n > 0 {
		v.window.add(time.Now(), resultL1, n)
		v.looked[resultL1].Add(float64(n))
	}
}

func hitsOf(counts [results]int64) Hits {
	h := Hits{ByResult: make(map[string]int64, results)}
	for r, n := range counts {
		if result(r) == resultLoad {
			h.Loaded = n
			continue
		}
		h.ByResult[resultNames[r]] = n
		h.Lookups += n
	}
	if h.Lookups > 0 {
		rate := float64(h.Lookups-counts[resultMiss]) / float64(h.Lookups)
		h.Rate = &rate
	}
	return h
}

// HitRate reports the look-ups of this process in the last Options.Window.
func (s *Store) HitRate() HitRate { return s.report("process", 1, s.counts()) }

func (s *Store) counts() viewCounts {
	now, counts := time.Now(), viewCounts{}
	for _, v := range s.declared() {
		v.settle()
		counts[v.name] = v.window.sum(now)
	}
	return counts
}

func (s *Store) report(scope string, processes int, counts viewCounts) HitRate {
	report := HitRate{Scope: scope, Processes: processes, WindowSeconds: s.opts.Window.Seconds(), Views: map[string]Hits{}}
	var total [results]int64
	for view, n := range counts {
		report.Views[view] = hitsOf(n)
		for r := range n {
			total[r] += n[r]
		}
	}
	report.Total = hitsOf(total)
	return report
}

func (s *Store) declared() []*viewState {
	s.mu.Lock()
	defer s.mu.Unlock()
	views := make([]*viewState, 0, len(s.views))
	for _, v := range s.views {
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b *viewState) int { return strings.Compare(a.name, b.name) })
	return views
}
