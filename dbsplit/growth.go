package dbsplit

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"
)

const (
	growthInterval    = 10 * time.Minute
	keptSizes         = 48
	leastSizeInterval = time.Minute
)

// sizeHistory keeps earlier sizes. The first ones are kept for as long as the process runs; of the others the older they
// are, the fewer.
type sizeHistory struct {
	mu   sync.Mutex
	kept []sizeSnapshot // oldest first
}

type sizeSnapshot struct {
	at     time.Time
	bytes  int64
	tables map[uint32]int64 // by oid, partitions in their root
}

// since returns the oldest kept snapshot that is not older than window, or else the newest, and keeps the present one.
// When there is none it returns a zero snapshot.
func (h *sizeHistory) since(now sizeSnapshot, window time.Duration) sizeSnapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	var base sizeSnapshot
	if i := slices.IndexFunc(h.kept, func(s sizeSnapshot) bool { return now.at.Sub(s.at) <= window }); i >= 0 {
		base = h.kept[i]
	} else if len(h.kept) > 0 {
		base = h.kept[len(h.kept)-1]
	}
	if len(h.kept) == 0 || now.at.Sub(h.kept[len(h.kept)-1].at) >= leastSizeInterval {
		h.kept = append(h.kept, now)
	}
	if len(h.kept) > keptSizes {
		i := leastMissed(len(h.kept), func(i int) time.Time { return h.kept[i].at }, now.at)
		h.kept = slices.Delete(h.kept, i, i+1)
	}
	return base
}

// leastMissed returns which of n snapshots is missed least: the one whose neighbours are closest, in proportion to their age.
// It is neither the first nor the last.
func leastMissed(n int, taken func(i int) time.Time, now time.Time) int {
	least, at := math.Inf(1), 1
	for i := 1; i < n-1; i++ {
		before, after := taken(i-1), taken(i+1)
		if gap := float64(after.Sub(before)) / float64(now.Sub(before)); gap < least {
			least, at = gap, i
		}
	}
	return at
}

func (r *SizesReport) snapshot(at time.Time) sizeSnapshot {
	s := sizeSnapshot{at: at, bytes: r.Bytes, tables: make(map[uint32]int64, len(r.Tables))}
	for _, t := range r.Tables {
		s.tables[t.oid] = t.Bytes
	}
	return s
}

// compare fills in what was added since base.
func (r *SizesReport) compare(now, base sizeSnapshot) {
	if base.at.IsZero() {
		return
	}
	window := now.at.Sub(base.at)
	r.Since, r.WindowSeconds = base.at, window.Seconds()
	r.Growth = growth(now.bytes-base.bytes, window)
	for i := range r.Tables {
		t := &r.Tables[i]
		if before, ok := base.tables[t.oid]; ok {
			t.Growth = growth(t.Bytes-before, window)
		}
	}
}

func growth(bytes int64, window time.Duration) *Growth {
	g := &Growth{Bytes: bytes}
	if window >= shortestForecast {
		perDay := int64(float64(bytes) * (24 * time.Hour).Seconds() / window.Seconds())
		g.PerDayBytes = &perDay
	}
	return g
}

// watchSizes measures until ctx ends, so that there is something to compare with.
func (db *DB) watchSizes(ctx context.Context) {
	ticker := time.NewTicker(growthInterval)
	defer ticker.Stop()
	for {
		if r, err := db.measureSizes(ctx); err == nil {
			db.sizes.since(r.snapshot(time.Now()), 0)
		} else if ctx.Err() == nil && sqlState(err) != "" { // the monitor reports a primary that is down
			db.in.failed("sizes")
			db.opts.Logger.Warn("dbsplit: cannot measure the tables", "db", db.opts.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
