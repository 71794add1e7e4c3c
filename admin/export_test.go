package admin

import (
	"net/http"
	"time"
)

// NewServer is the server that Serve uses.
func NewServer(handler http.Handler) *http.Server { return newServer(handler) }

// Running reports whether Run takes work.
func (h *Handler) Running() bool {
	h.background.mu.Lock()
	defer h.background.mu.Unlock()
	return h.background.ctx != nil
}

// Bucket takes one token of a limiter made for a test.
type Bucket struct{ l *limiter }

func NewBucket(rate float64) Bucket { return Bucket{newLimiter(rate)} }

func (b Bucket) Take(actor string, now time.Time) *Problem { return b.l.take(actor, now) }

func (b Bucket) Actors() int { return len(b.l.buckets) }

// ShortenBodies makes clients hurry.
func (h *Handler) ShortenBodies(d time.Duration) { h.bodyTimeout = d }
