package scaleaware

import "slices"

// Seed is what a unit of work begins with, and what costs something to learn: a session's tokens, for example.
type Seed interface {
	// Tokens is called at most a few times, possibly at the same time, and answers alike each time. Implement it on a pointer.
	Tokens() Tokens
}

// SeedFrom makes the tokens of s part of the watermark as if they had been raised now, but learns them when somebody first
// asks for Known or Written. It is no change in the sense of Changes.
func (w *Watermark) SeedFrom(s Seed) {
	if w == nil || s == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seeds) == 0 {
		w.seeds = w.seedBuf[:0]
	}
	w.seeds = append(w.seeds, s)
}

// sow learns what was seeded. w.mu is held before and after, and not meanwhile.
func (w *Watermark) sow() {
	for len(w.seeds) > 0 {
		s := w.seeds[0]
		w.mu.Unlock()
		ts := s.Tokens()
		w.mu.Lock()
		if i := slices.Index(w.seeds, s); i >= 0 {
			w.seeds = slices.Delete(w.seeds, i, i+1)
			for _, t := range ts {
				w.take(t)
			}
		}
	}
}
