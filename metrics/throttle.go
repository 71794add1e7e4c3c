package metrics

import (
	"strconv"
	"strings"
)

// periods are those of one control group's CPU limit, since it was made.
type periods struct{ all, throttled float64 }

// heldBack is the part of the periods since before in which the most limited group was held back, or nil where none has a
// limit.
func heldBack(before, now []periods) *float64 {
	if len(before) != len(now) {
		return nil
	}
	most := float64(unknown)
	for i, n := range now {
		if all := n.all - before[i].all; all > 0 {
			most = max(most, min(1, max(0, n.throttled-before[i].throttled)/all))
		}
	}
	if most < 0 {
		return nil
	}
	return &most
}

// held is since the last call.
func (p *probe) held() *float64 {
	now := ownThrottling()
	held := heldBack(p.periods, now)
	p.periods = now
	return held
}

// quota reads the cores that a file cpu.max allows, or unknown where it is no limit.
func quota(text string) float64 {
	most, period, ok := strings.Cut(strings.TrimSpace(text), " ")
	of, err1 := strconv.ParseFloat(most, 64) // "max" is none
	per, err2 := strconv.ParseFloat(period, 64)
	if !ok || err1 != nil || err2 != nil || !(of > 0 && per > 0) {
		return unknown
	}
	return of / per
}
