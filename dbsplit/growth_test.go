package dbsplit

import (
	"testing"
	"time"
)

func TestGrowth(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var h sizeHistory
	at := func(d time.Duration, bytes int64) sizeSnapshot {
		return sizeSnapshot{at: start.Add(d), bytes: bytes, tables: map[uint32]int64{1: bytes / 2}}
	}
	if base := h.since(at(0, 100), time.Hour); !base.at.IsZero() {
		t.Errorf("nothing to compare with: %v", base)
	}
	// 30 days of a measurement every 10 minutes: the first is kept, and a day back is never far off.
	for d := growthInterval; d <= 30*24*time.Hour; d += growthInterval {
		now := at(d, 100+int64(d/time.Second))
		base := h.since(now, 24*time.Hour)
		window := now.at.Sub(base.at)
		if window > 24*time.Hour || d >= 48*time.Hour && window < 16*time.Hour {
			t.Fatalf("after %v a day back is %v", d, window)
		}
		if len(h.kept) > keptSizes || !h.kept[0].at.Equal(start) {
			t.Fatalf("after %v %d are kept, from %v", d, len(h.kept), h.kept[0].at)
		}
	}
	now := at(30*24*time.Hour+time.Minute, 1)
	if base := h.since(now, time.Second); base.at.IsZero() {
		t.Error("a window without a measurement falls back to the newest one")
	}

	r := &SizesReport{Bytes: 700, Tables: []TableSize{{oid: 1, Bytes: 40}, {oid: 2, Bytes: 5}}}
	r.compare(at(12*time.Hour, 700), at(0, 100))
	if r.Growth.Bytes != 600 || *r.Growth.PerDayBytes != 1200 || r.WindowSeconds != 12*3600 || !r.Since.Equal(start) {
		t.Errorf("%+v, %+v", r, r.Growth)
	}
	if g := r.Tables[0].Growth; g.Bytes != -10 || *g.PerDayBytes != -20 || r.Tables[1].Growth != nil {
		t.Errorf("%+v, %+v", g, r.Tables[1].Growth)
	}
	if g := growth(5, 59*time.Minute); g.PerDayBytes != nil {
		t.Error("a forecast from less than an hour")
	}
}
