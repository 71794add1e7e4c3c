package metrics

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Level is what a value means.
type Level int

const (
	// Unknown means that there is no value, since nothing happened or nothing measures it here, or one of too few events.
	Unknown Level = iota
	// OK means inside both thresholds, or that the metric has none.
	OK
	// Warning means past the warning threshold.
	Warning
	// Critical means past the critical threshold.
	Critical
)

var levelNames = [...]string{"unknown", "ok", "warning", "critical"}

// String returns unknown, ok, warning or critical.
func (l Level) String() string { return levelNames[l] }

// MarshalText makes it a JSON string.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Op says on which side of a threshold the trouble is.
type Op int

const (
	// Above means that more is worse. The threshold itself is still fine.
	Above Op = iota
	// Below means that less is worse. The threshold itself is still fine.
	Below
)

// String returns above or below.
func (o Op) String() string {
	if o == Below {
		return "below"
	}
	return "above"
}

// MarshalText makes it a JSON string.
func (o Op) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

func (o Op) symbol() string {
	if o == Below {
		return "<"
	}
	return ">"
}

func (o Op) past(value, threshold float64) bool {
	if o == Below {
		return value < threshold
	}
	return value > threshold
}

// Threshold is one bound of a key metric.
type Threshold struct {
	// Severity is Warning or Critical.
	Severity Level
	// Value is in the metric's unit.
	Value float64
	// For is how long the value must be past the bound before the alert fires.
	For time.Duration
	// Clear is what the value must no longer be past for an alert that has fired to end. Zero means Value.
	Clear float64
}

// HasThresholds says whether the metric alerts.
func (m KeyMetric) HasThresholds() bool { return m.WarningFor > 0 }

// Thresholds returns the metric's bounds, the warning first, or nothing.
func (m KeyMetric) Thresholds() []Threshold {
	if !m.HasThresholds() {
		return nil
	}
	return []Threshold{m.threshold(Warning), m.threshold(Critical)}
}

// threshold is the bound of a severity.
func (m *KeyMetric) threshold(severity Level) Threshold {
	if severity == Critical {
		return Threshold{Critical, m.Critical, m.CriticalFor, m.CriticalClear}
	}
	return Threshold{Warning, m.Warning, m.WarningFor, m.WarningClear}
}

// Level says what a value of the metric means now, whatever it was before. NaN is Unknown.
func (m KeyMetric) Level(value float64) Level {
	switch {
	case math.IsNaN(value):
		return Unknown
	case !m.HasThresholds():
		return OK
	case m.Op.past(value, m.Critical):
		return Critical
	case m.Op.past(value, m.Warning):
		return Warning
	}
	return OK
}

// muted says whether the metric that Unless names keeps this one from alerting.
func (m KeyMetric) muted(scope string, values map[string]map[string]float64) bool {
	return m.Unless != "" && values[m.Unless][scope] > 0
}

// validate finds what would make an alert fire wrongly or never.
func (m KeyMetric) validate() error {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("metrics: key metric %s: "+format, append([]any{m.ID}, args...)...))
	}
	for _, label := range m.Scope {
		if !slices.Contains(m.Series.Labels, label) {
			fail("series %s has no label %s", m.Series.Name, label)
		}
	}
	if m.Label != "" && !slices.Contains(m.Series.Labels, m.Label) {
		fail("series %s has no label %s", m.Series.Name, m.Label)
	}
	if len(m.Among) > 0 && (m.Statistic != Share || !slices.Contains(m.Among, m.Value)) {
		fail("is among %s: give that only to a share, and let the value %q be one of them", strings.Join(m.Among, ", "), m.Value)
	}
	bounds := []float64{}
	switch m.Statistic {
	case Quantile:
		if m.HasThresholds() {
			bounds = append(bounds, m.Warning, m.Critical)
			for _, t := range m.Thresholds() {
				if t.Clear != 0 {
					bounds = append(bounds, t.Clear)
				}
			}
		}
	case OverPerMinute:
		bounds = append(bounds, m.Param)
	}
	for _, bound := range bounds {
		// Without a boundary at the threshold a quantile errs both ways; without a finite one above, it ends there.
		if i := slices.Index(m.Series.Buckets, bound); i < 0 || i == len(m.Series.Buckets)-1 {
			fail("%g must be a bucket boundary of %s with a finite one above", bound, m.Series.Name)
		}
	}
	if m.HasThresholds() {
		if !m.Op.past(m.Critical, m.Warning) {
			fail("critical %g must be %s warning %g: change one of them", m.Critical, m.Op, m.Warning)
		}
		if m.CriticalFor <= 0 {
			fail("an alert needs a time that the value must be past the threshold for: give one above 0")
		}
		if m.Alert == "" {
			fail("has thresholds and no name for its alerts: give it one")
		}
	}
	for _, t := range m.Thresholds() {
		if t.Clear != 0 && !(t.Clear > 0 && m.Op.past(t.Value, t.Clear)) {
			fail("%s %g must be %s its clear %g, which must be above 0: change one of them", t.Severity, t.Value, m.Op, t.Clear)
		}
	}
	if m.WarningFor < 0 || m.KeepFiringFor < 0 {
		fail("times must not be negative")
	}
	if !(m.MinEvents >= 0) || m.MinEvents > 0 && !m.hasEvents() {
		fail("min_events %g: give 0 or more, and only to a metric made of events", m.MinEvents)
	}
	return errors.Join(errs...)
}

// hasEvents says whether MinEvents means something.
func (m KeyMetric) hasEvents() bool {
	return m.Statistic == Quantile || m.Statistic == Share || m.Statistic == OverPerMinute
}
