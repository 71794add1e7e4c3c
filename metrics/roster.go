package metrics

import (
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Member is one instance of the fleet, as this one sees it.
type Member struct {
	// Instance is its name.
	Instance string `json:"instance"`
	// Version is the program's, or empty when it does not tell.
	Version string `json:"version"`
	// SnapshotAgeSeconds is how long this instance has seen nothing newer of it, by this instance's clock.
	SnapshotAgeSeconds float64 `json:"snapshot_age_seconds"`
	// UptimeSeconds is how long it has been evaluating.
	UptimeSeconds float64 `json:"uptime_seconds"`
	// ClockOffsetSeconds is by how much its clock is ahead of this instance's, to within an interval. No value depends
	// on it.
	ClockOffsetSeconds float64 `json:"clock_offset_seconds"`
}

// roster remembers when each instance's snapshot was seen to change. The snapshots' own times are of other clocks.
type roster struct {
	every time.Duration
	seen  map[string]sighting
}

type sighting struct {
	at     int64 // as the snapshot has it
	since  time.Time
	offset time.Duration
}

// see removes the readings that have not changed for three intervals, and returns their instances. The store forgets
// them by itself, unless their time to live was lost.
func (r *roster) see(now time.Time, readings map[string]*reading) (stale []string) {
	maps.DeleteFunc(r.seen, func(instance string, _ sighting) bool { return readings[instance] == nil })
	for instance, reading := range readings {
		s, known := r.seen[instance]
		if !known || s.at != reading.At {
			s = sighting{reading.At, now, time.UnixMilli(reading.At).Sub(now)}
			r.seen[instance] = s
		}
		every := r.every
		if v := reading.Vitals; v != nil {
			every = max(every, time.Duration(v.Every)*time.Millisecond)
		}
		if now.Sub(s.since) > 3*every {
			stale = append(stale, instance)
			delete(readings, instance)
		}
	}
	return stale
}

// members lists those of which there are readings.
func (r *roster) members(now time.Time, readings map[string]*reading) []Member {
	list := []Member{}
	for _, instance := range slices.Sorted(maps.Keys(readings)) {
		reading := readings[instance]
		m := Member{Instance: instance, UptimeSeconds: reading.age().Seconds()}
		if s, ok := r.seen[instance]; ok && s.at == reading.At {
			m.SnapshotAgeSeconds = now.Sub(s.since).Seconds()
			m.ClockOffsetSeconds = s.offset.Round(time.Second).Seconds()
		}
		if v := reading.Vitals; v != nil {
			m.Version = v.Program
		}
		list = append(list, m)
	}
	return list
}

// describeLosses says whose snapshots do not count.
func describeLosses(unreadable, stale []string) []string {
	var out []string
	if len(unreadable) > 0 {
		out = append(out, "not of this version, or damaged, and left out: the snapshot of "+listed(unreadable))
	}
	if len(stale) > 0 {
		out = append(out, "no longer renewed, and left out: the snapshot of "+listed(stale))
	}
	return out
}

// listed names the first few.
func listed(names []string) string {
	const most = 5
	slices.Sort(names)
	quoted := make([]string, min(most, len(names)))
	for i := range quoted {
		quoted[i] = fmt.Sprintf("%.64q", names[i])
	}
	text := strings.Join(quoted, ", ")
	if n := len(names) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// buildVersion is the main module's version or the revision that it was built from.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (version == "" || version == "(devel)") {
			version = s.Value[:min(12, len(s.Value))]
		}
	}
	return version[:min(maxProgram, len(version))]
}
