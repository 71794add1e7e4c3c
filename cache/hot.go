package cache

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// hotSample is how many look-ups one stands for.
	hotSample = 4
	// hotKept is how many keys are counted at a time; the rarest make way.
	hotKept = 1024
	hotSlot = time.Second
)

// HotKey is a key that this process looks up in Redis often.
type HotKey struct {
	// View is the view's name.
	View string `json:"view"`
	// Key is the key in the view.
	Key string `json:"key"`
	// PerSecond is how often it was looked up in Redis in the last second, estimated from a sample.
	PerSecond float64 `json:"per_second"`
}

type viewKey struct{ view, id string }

// heat counts the look-ups of the keys that are looked up most, second by second.
type heat struct {
	mu      sync.Mutex
	slot    int64
	current map[viewKey]int
	last    map[viewKey]int
}

// note counts a look-up in Redis, or lets another stand for it.
func (h *heat) note(view, id string, now time.Duration) {
	if rand.Uint32()%hotSample == 0 {
		h.count(view, id, now)
	}
}

// count counts a look-up that stands for hotSample.
func (h *heat) count(view, id string, now time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(now)
	key := viewKey{view, id}
	if _, known := h.current[key]; !known && len(h.current) >= hotKept {
		for k, n := range h.current { // Misra and Gries: what is frequent survives, at most len/hotKept short
			if n--; n == 0 {
				delete(h.current, k)
			} else {
				h.current[k] = n
			}
		}
		if len(h.current) >= hotKept {
			return
		}
	}
	h.current[key]++
}

// turn begins a new slot when it is time. h.mu is held.
func (h *heat) turn(now time.Duration) {
	switch slot := int64(now / hotSlot); {
	case slot == h.slot && h.current != nil:
	case slot == h.slot+1:
		h.slot, h.last, h.current = slot, h.current, make(map[viewKey]int)
	default:
		h.slot, h.last, h.current = slot, nil, make(map[viewKey]int)
	}
}

// perSecond estimates how often a key is looked up.
func (h *heat) perSecond(view, id string, now time.Duration) float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn(now)
	key := viewKey{view, id}
	return float64(max(h.last[key], h.current[key]) * hotSample)
}

// HotKeys returns the keys that this process looks up in Redis most, at most n, the hottest first. What views keep in the
// process is not looked up there.
func (s *Store) HotKeys(n int) []HotKey {
	s.heat.mu.Lock()
	s.heat.turn(s.now())
	var keys []HotKey
	for key, count := range s.heat.last {
		keys = append(keys, HotKey{key.view, key.id, float64(max(count, s.heat.current[key]) * hotSample)})
	}
	for key, count := range s.heat.current {
		if _, both := s.heat.last[key]; !both {
			keys = append(keys, HotKey{key.view, key.id, float64(count * hotSample)})
		}
	}
	s.heat.mu.Unlock()
	slices.SortFunc(keys, func(a, b HotKey) int {
		return cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(a.View, b.View), cmp.Compare(a.Key, b.Key))
	})
	return keys[:min(max(n, 0), len(keys))]
}
