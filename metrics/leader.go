package metrics

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// delivery is what an instance that notifies tells the others, so that one of them sends and the next goes on.
type delivery struct {
	// Failing is true where messages do not arrive: another instance sends, if there is one that can.
	Failing bool `json:"failing,omitempty"`
	// Groups are what has been sent, by group key.
	Groups map[string]deliveredGroup `json:"groups,omitempty"`
}

type deliveredGroup struct {
	Age      int64    `json:"age"` // milliseconds from its last message to the snapshot
	Firing   []string `json:"firing,omitempty"`
	Resolved []string `json:"resolved,omitempty"`
}

// delivery is for this instance's snapshot.
func (w *Webhook) delivery(now time.Time) *delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := &delivery{Failing: !w.failing.IsZero() && w.lastFail.Sub(w.failing) >= failingAfter && now.Sub(w.lastFail) < failingFor}
	for key, g := range w.groups {
		if g.sent.IsZero() {
			continue
		}
		if d.Groups == nil {
			d.Groups = map[string]deliveredGroup{}
		}
		d.Groups[key] = deliveredGroup{now.Sub(g.sent).Milliseconds(), slices.Sorted(maps.Keys(g.firing)), slices.Sorted(maps.Keys(g.resolved))}
	}
	return d
}

// learn takes over what another instance has sent later than this one.
func (w *Webhook) learn(d *delivery, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, other := range d.Groups {
		sent := at.Add(-time.Duration(other.Age) * time.Millisecond)
		g := w.groups[key]
		if g == nil && len(w.groups) < maxGroups {
			g = &sentGroup{since: sent}
			w.groups[key] = g
		}
		// What comes back from the others is a snapshot late, and is not later for that.
		if g != nil && sent.After(g.sent.Add(time.Second)) {
			g.sent, g.firing, g.resolved = sent, set(other.Firing), set(other.Resolved)
			g.owed = false
		}
	}
}

// leader is who sends: of those that notify the one whose messages arrive, then the one that has evaluated longest. All
// compare the same numbers, however far their clocks are apart.
func leader(readings map[string]*reading) string {
	best := ""
	for name, r := range readings {
		if r.Delivery == nil {
			continue
		}
		if best == "" || cmp.Or(
			compareBool(r.Delivery.Failing, readings[best].Delivery.Failing),
			cmp.Compare(r.Started, readings[best].Started),
			cmp.Compare(name, best),
		) < 0 {
			best = name
		}
	}
	return best
}

func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case y:
		return -1
	}
	return 1
}
