package report

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
)

// Duration writes ns with three digits: 80.1 ns, 57.2 µs, 1.25 ms, 3.4 s.
func Duration(ns float64) string {
	if ns == 0 {
		return "0 s"
	}
	for _, u := range []struct {
		ns   float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if math.Abs(ns) >= u.ns {
			return digits(ns/u.ns) + " " + u.name
		}
	}
	return digits(ns) + " ns"
}

// Since writes a duration like Duration.
func Since(d time.Duration) string { return Duration(float64(d)) }

func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// Time writes a median with its quartiles.
func Time(s pairs.Spread) string {
	return fmt.Sprintf("%s (%s to %s)", Duration(s.Median), Duration(s.Q1), Duration(s.Q3))
}

// Ratio writes a ratio with its confidence interval.
func Ratio(s pairs.Spread) string {
	return fmt.Sprintf("%.3f (%.3f to %.3f)", s.Median, s.Low, s.High)
}

// Cost writes what an operation allocates.
func Cost(r pairs.Result) string { return Allocations(r.Allocs, r.Bytes) }

// Allocations writes allocations and bytes of one operation.
func Allocations(allocs, bytes float64) string {
	return Count(allocs) + " allocs, " + Count(bytes) + " B"
}

// Count writes a mean: 2, 1.5, 418. What the background adds to a mean over many operations is rounded away.
func Count(v float64) string {
	if math.Abs(v) >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	text := strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	if text == "-0" {
		return "0"
	}
	return text
}

// Percent writes a share.
func Percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }
