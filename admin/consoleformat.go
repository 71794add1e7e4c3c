package admin

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// quantity writes a value with its unit as people read it.
func quantity(v float64, unit string) string {
	switch unit {
	case "seconds":
		return seconds(v)
	case "ratio":
		return short(v*100) + " %"
	case "per_second":
		return short(v) + " /s"
	case "per_minute":
		return short(v) + " /min"
	case "bytes":
		return bytesOf(v)
	case "bytes_per_day":
		return bytesOf(v) + " /day"
	case "":
		return short(v)
	}
	if v == 1 {
		unit = strings.TrimSuffix(unit, "s")
	}
	return short(v) + " " + strings.ReplaceAll(unit, "_", " ")
}

// short keeps three digits, and none of what they hide.
func short(v float64) string {
	abs := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case abs >= 1e9:
		return short(v/1e9) + " G"
	case abs >= 1e6:
		return short(v/1e6) + " M"
	case abs >= 1e5:
		return short(v/1e3) + " k"
	case abs >= 100 || v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case abs < 0.01:
		return "≈ 0"
	case abs >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func seconds(v float64) string {
	abs := math.Abs(v)
	switch {
	case abs == 0:
		return "0 ms"
	case abs < 1e-3:
		return short(v*1e6) + " µs"
	case abs < 1:
		return short(v*1e3) + " ms"
	case abs < 120:
		return short(v) + " s"
	case abs < 7200:
		return short(v/60) + " min"
	}
	return short(v/3600) + " h"
}

func bytesOf(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; math.Abs(v) >= 1024 && i < len(units)-1; i++ {
		v /= 1024
	}
	return short(v) + " " + units[i]
}

// ago is the time since t, in one unit.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	switch d := time.Since(t); {
	case d < 0:
		return "in " + seconds(math.Ceil(-d.Seconds()))
	case d < time.Second:
		return "now"
	default:
		return seconds(math.Floor(d.Seconds())) + " ago"
	}
}

// bar is a value against its thresholds, on a scale of 0 to 100.
type bar struct {
	Value             string // x of the value
	Warning, Critical string // x of the thresholds; empty without
}

func newBar(m metricReply) *bar {
	if m.Value == nil {
		return nil
	}
	if m.Warning == nil || m.Critical == nil {
		if m.Unit != "ratio" || math.IsNaN(*m.Value) {
			return nil // no scale
		}
		return &bar{Value: fmt.Sprintf("%.1f", 100*max(0, min(1, *m.Value)))}
	}
	full := max(*m.Warning, *m.Critical) * 1.3
	if m.Unit == "ratio" && full > .75 {
		full = 1
	}
	full = max(full, min(*m.Value, full*4)*1.04)
	if m.Unit == "ratio" {
		full = min(full, 1)
	}
	if full <= 0 || math.IsNaN(full) {
		return nil
	}
	x := func(v float64) float64 { return math.Max(0, math.Min(100, 100*v/full)) }
	return &bar{Value: fmt.Sprintf("%.1f", x(*m.Value)), Warning: fmt.Sprintf("%.1f", x(*m.Warning)), Critical: fmt.Sprintf("%.1f", x(*m.Critical))}
}

// level maps what operations say to the page's colours.
func level(state string) string {
	switch state {
	case "ok", "warning", "critical":
		return state
	}
	return "unknown"
}

// scopeName is what tells rows of one metric apart: the values of all labels but those that every alert has.
func scopeName(labels map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		switch name {
		case "alertname", "severity", "metric":
			continue
		}
		if v := labels[name]; v != "" {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, " · ")
}
