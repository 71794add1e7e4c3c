package main

import (
	"slices"
	"testing"
	"time"
)

func TestArrivals(t *testing.T) {
	to := 30.0
	down := 1.0
	phases := []Phase{{Duration: 10, ArrivalRate: 10, RampTo: &to}, {Duration: 5, ArrivalRate: 2}, {Duration: 10, ArrivalRate: 9, RampTo: &down}}
	all := slices.Collect(arrivals(phases))
	if !slices.IsSorted(all) || all[0] != 0 {
		t.Errorf("arrivals begin at %v and are in order: %v", all[0], slices.IsSorted(all))
	}
	within := func(from, to time.Duration) (n int) {
		for _, at := range all {
			if at >= from && at < to {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		from, to time.Duration
		want     int
	}{
		{0, 10 * time.Second, 200},               // on average 20 a second
		{0, time.Second, 11},                     // 10 growing to 12
		{9 * time.Second, 10 * time.Second, 29},  // 28 growing to 30
		{10 * time.Second, 15 * time.Second, 10}, // steady
		{15 * time.Second, 25 * time.Second, 50}, // falling, on average 5
		{24 * time.Second, time.Hour, 1},
	} {
		if got := within(c.from, c.to); got < c.want-1 || got > c.want+1 {
			t.Errorf("from %v to %v: %d arrivals, want %d", c.from, c.to, got, c.want)
		}
	}
	if got := duration(phases); got != 25*time.Second {
		t.Errorf("users arrive for %v", got)
	}
}
