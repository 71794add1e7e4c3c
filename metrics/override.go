package metrics

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Override changes the thresholds of one key metric. What is nil stays as it is.
type Override struct {
	// Warning and Critical are in the metric's unit: seconds for latencies, 0.8 for 80 %. A row without thresholds
	// gets them when both are given.
	Warning, Critical *float64
	// WarningClear and CriticalClear are what the value must no longer be past for a fired alert to end: between fine and
	// the threshold. 0 is the threshold itself.
	WarningClear, CriticalClear *float64
	// WarningFor and CriticalFor are how long the value must be past them before the alert fires.
	WarningFor, CriticalFor *time.Duration
	// KeepFiringFor is how long a fired alert outlasts its cause.
	KeepFiringFor *time.Duration
	// MinEvents is how many events the window must have for an alert.
	MinEvents *float64
}

// Override returns a copy of the table with other thresholds, by the key metrics' IDs. Where a latency threshold is no
// bucket boundary yet, the copy's buckets have it, with a finite one above. The error joins all mistakes.
func (t Table) Override(changes map[string]Override) (Table, error) {
	out := t
	out.Rows = slices.Clone(t.Rows)
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(changes)) {
		i := slices.IndexFunc(out.Rows, func(m KeyMetric) bool { return m.ID == id })
		if i < 0 {
			errs = append(errs, fmt.Errorf("metrics: override of %q: there is no such key metric, take one of %s", id, strings.Join(t.IDs(), ", ")))
			continue
		}
		row, err := out.Rows[i].override(changes[id])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out.Rows[i] = row
		if row.Statistic == Quantile && row.HasThresholds() {
			buckets := row.Series.Buckets
			for _, bound := range []float64{row.Warning, row.Critical, row.WarningClear, row.CriticalClear} {
				if bound != 0 {
					buckets = withBoundary(buckets, bound)
				}
			}
			for j := range out.Rows { // all that is made of the same histogram
				if out.Rows[j].Series.Name == row.Series.Name {
					out.Rows[j].Series.Buckets = buckets
				}
			}
		}
	}
	if len(errs) == 0 {
		errs = append(errs, out.validate())
	}
	if err := errors.Join(errs...); err != nil {
		return t, err
	}
	return out, nil
}

func (m KeyMetric) override(o Override) (KeyMetric, error) {
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("metrics: override of %s: "+format, append([]any{m.ID}, args...)...))
	}
	threshold := func(name string, value *float64, to *float64) {
		switch {
		case value == nil:
			return
		case math.IsNaN(*value) || math.IsInf(*value, 0):
			fail("%s is %g, give a finite number", name, *value)
		case *value < 0 || m.Unit == Seconds && *value == 0:
			fail("%s is %g, give a number above 0", name, *value)
		case m.Unit == Ratio && (*value > 1 || *value == 1 && m.Op == Above):
			fail("%s is %g, and a ratio is never %s that: 80 %% is 0.8", name, *value, m.Op)
		}
		*to = *value
	}
	positive := func(name string, value *time.Duration, to *time.Duration) {
		if value == nil {
			return
		}
		if *value < time.Millisecond {
			fail("%s is %v, give a time above 0", name, *value)
		}
		*to = *value
	}
	had := m.HasThresholds()
	if had || o.Warning != nil && o.Critical != nil {
		if !had {
			m.WarningFor, m.CriticalFor = long, short
		}
	} else if o != (Override{}) {
		fail("it has no thresholds, give both warning and critical")
	}
	if m.Alert == "" {
		fail("it only says something about other metrics and cannot alert, remove it")
	}
	threshold("warning", o.Warning, &m.Warning)
	threshold("critical", o.Critical, &m.Critical)
	clears := func(name string, value *float64, to *float64) {
		if value != nil && *value == 0 {
			*to = 0
			return
		}
		threshold(name, value, to)
	}
	clears("warning_clear", o.WarningClear, &m.WarningClear)
	clears("critical_clear", o.CriticalClear, &m.CriticalClear)
	positive("warning_for", o.WarningFor, &m.WarningFor)
	positive("critical_for", o.CriticalFor, &m.CriticalFor)
	if o.KeepFiringFor != nil {
		if m.KeepFiringFor = *o.KeepFiringFor; m.KeepFiringFor < 0 {
			fail("keep_firing_for is %v, give 0 or more", m.KeepFiringFor)
		}
	}
	if o.MinEvents != nil {
		switch m.MinEvents = *o.MinEvents; {
		case !(m.MinEvents >= 0) || math.IsInf(m.MinEvents, 1):
			fail("min_events is %g, give 0 or more", m.MinEvents)
		case m.MinEvents > 0 && !m.hasEvents():
			fail("min_events is %g, and the metric is not made of events, remove it", m.MinEvents)
		}
	}
	if len(errs) == 0 && m.HasThresholds() && !m.Op.past(m.Critical, m.Warning) {
		fail("critical %g must be %s warning %g: change one of them", m.Critical, m.Op, m.Warning)
	}
	return m, errors.Join(errs...)
}

// withBoundary inserts a bound, and where it would be the last, twice that above it: a quantile never exceeds the last.
func withBoundary(buckets []float64, bound float64) []float64 {
	i, found := slices.BinarySearch(buckets, bound)
	if !found {
		buckets = slices.Insert(slices.Clone(buckets), i, bound)
	}
	if i == len(buckets)-1 {
		buckets = append(slices.Clone(buckets), 2*bound)
	}
	return buckets
}

// overrideJSON is an [Override] in a file.
type overrideJSON struct {
	Warning              *float64 `json:"warning"`
	Critical             *float64 `json:"critical"`
	WarningClear         *float64 `json:"warning_clear"`
	CriticalClear        *float64 `json:"critical_clear"`
	WarningForSeconds    *float64 `json:"warning_for_seconds"`
	CriticalForSeconds   *float64 `json:"critical_for_seconds"`
	KeepFiringForSeconds *float64 `json:"keep_firing_for_seconds"`
	MinEvents            *float64 `json:"min_events"`
}

// ReadOverrides reads what [Table.Override] takes from JSON:
//
//	{"api_latency_p95": {"warning": 0.25, "critical": 0.6, "warning_for_seconds": 300, "critical_for_seconds": 120,
//	                     "keep_firing_for_seconds": 60, "min_events": 100},
//	 "queue_depth":     {"warning_clear": 900, "critical_clear": 4000}}
//
// Nothing is required, and nothing else is taken. The error joins all mistakes.
func ReadOverrides(r io.Reader) (map[string]Override, error) {
	dec := json.NewDecoder(r)
	wrong := func(err error) error {
		return fmt.Errorf(`metrics: overrides must be a JSON object by key metric, such as {"api_latency_p95": {"warning": 0.25}}: %w`, err)
	}
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, wrong(cmpError(err, "it does not begin with {"))
	}
	out := map[string]Override{}
	var errs []error
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, wrong(err)
		}
		id := key.(string)
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, wrong(err)
		}
		if _, twice := out[id]; twice {
			errs = append(errs, fmt.Errorf("metrics: override of %s: it is there twice, keep one", id))
			continue
		}
		if out[id], err = readOverride(raw); err != nil {
			errs = append(errs, fmt.Errorf("metrics: override of %s: take warning, critical, warning_clear, critical_clear, warning_for_seconds, critical_for_seconds, keep_firing_for_seconds, min_events, each a number: %w", id, err))
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, wrong(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		errs = append(errs, wrong(errors.New("something follows the object")))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

func cmpError(err error, otherwise string) error {
	if err != nil {
		return err
	}
	return errors.New(otherwise)
}

func readOverride(raw []byte) (Override, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var j *overrideJSON
	if err := dec.Decode(&j); err != nil {
		return Override{}, err
	}
	if j == nil {
		return Override{}, errors.New("it is null")
	}
	seconds := func(v *float64) *time.Duration {
		if v == nil {
			return nil
		}
		// What no Duration can hold becomes the longest one, never a negative one.
		return new(time.Duration(min(*v*float64(time.Second), float64(math.MaxInt64/2))))
	}
	return Override{
		Warning: j.Warning, Critical: j.Critical, WarningClear: j.WarningClear, CriticalClear: j.CriticalClear, MinEvents: j.MinEvents,
		WarningFor: seconds(j.WarningForSeconds), CriticalFor: seconds(j.CriticalForSeconds), KeepFiringFor: seconds(j.KeepFiringForSeconds),
	}, nil
}
