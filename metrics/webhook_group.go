package metrics

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// sentGroup is what is known of a group of alerts: what its last message said, and when the next may be sent.
type sentGroup struct {
	since    time.Time       // of its first alert since all of its alerts had ended
	sent     time.Time       // when its last message arrived, or zero
	firing   map[string]bool // fingerprints in that message
	resolved map[string]bool
	failures int
	next     time.Time // not before
	owed     bool      // a message about it failed: its end is told even if its beginning was not
}

// outgoing is a message on its way.
type outgoing struct {
	key     string
	group   *sentGroup
	payload *webhookMessage
	firing  map[string]bool
	ended   map[string]bool
}

// forgotten are the alerts that the evaluator no longer remembers, and whose end is still to be told.
func (w *Webhook) forgotten(now []Alert) (list []Alert) {
	if len(w.alerts) == 0 {
		return nil
	}
	known := map[string]bool{}
	for _, a := range now {
		known[fingerprint(a.Labels)] = true
	}
	for _, a := range w.alerts {
		id, g := fingerprint(a.Labels), w.groups[groupKey(w.groupLabels(a))]
		if a.ResolvedAt != nil && !known[id] && g != nil && g.owes(id) && w.now.Sub(*a.ResolvedAt) <= owedFor {
			list = append(list, a)
		}
	}
	return list
}

// owes says that the end of an alert is to be told, because its beginning was, or may have been.
func (g *sentGroup) owes(id string) bool { return !g.resolved[id] && (g.firing[id] || g.owed) }

// due makes the messages that are to be sent now.
func (w *Webhook) due() []outgoing {
	w.mu.Lock()
	defer w.mu.Unlock()
	byKey := map[string][]Alert{}
	for _, a := range w.alerts {
		key := groupKey(w.groupLabels(a))
		byKey[key] = append(byKey[key], a)
	}
	maps.DeleteFunc(w.groups, func(key string, g *sentGroup) bool {
		// For a while, so that the others come to know what it has been told.
		return len(byKey[key]) == 0 && (len(g.firing) == 0 && w.now.Sub(g.sent) > failingFor || w.now.Sub(g.sent) > w.opts.RepeatInterval)
	})
	var list []outgoing
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		g := w.groups[key]
		if g == nil {
			if len(w.groups) >= maxGroups {
				w.counts.WithLabelValues("dropped").Inc()
				continue
			}
			g = &sentGroup{since: w.now}
			w.groups[key] = g
		}
		if m := w.message(key, g, byKey[key]); m != nil && w.leading && !w.now.Before(g.next) {
			list = append(list, *m)
		}
	}
	return list
}

// message is what a group has to say now, or nil.
func (w *Webhook) message(key string, g *sentGroup, alerts []Alert) *outgoing {
	m := &outgoing{key: key, group: g, firing: map[string]bool{}, ended: map[string]bool{}}
	var told []Alert
	muted := map[string]bool{}
	news := false
	for _, a := range alerts {
		id := fingerprint(a.Labels)
		switch {
		case a.State == inactive.String():
			if g.resolved[id] {
				m.ended[id] = true // told already
			} else if g.owes(id) {
				m.ended[id] = true
				told, news = append(told, a), true
			}
		case a.Inhibited:
			if g.firing[id] {
				muted[id] = true
			}
		default:
			m.firing[id] = true
			told = append(told, a)
			news = news || !g.firing[id]
		}
	}
	since := w.now.Sub(g.sent)
	switch {
	case len(told) == 0:
		return nil
	case g.sent.IsZero():
		if w.now.Sub(g.since) < w.opts.GroupWait {
			return nil
		}
	case news && since >= w.opts.GroupInterval:
	case len(m.firing) > 0 && since >= w.opts.RepeatInterval:
	default:
		return nil
	}
	m.payload = w.payload(key, told)
	maps.Copy(m.firing, muted) // told already, and its end will be
	return m
}

// done notes what became of a message.
func (w *Webhook) done(m outgoing, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := m.group
	if err == nil {
		w.counts.WithLabelValues("sent").Inc()
		g.sent, g.firing, g.resolved = w.now, m.firing, m.ended
		g.failures, g.next, g.owed = 0, time.Time{}, false
		w.failing, w.lastFail = time.Time{}, time.Time{}
		if w.logged {
			w.logged = false
			w.opts.Logger.Info("metrics: notifications arrive again", "receiver", w.url.Host)
		}
		return
	}
	w.counts.WithLabelValues("failed").Inc()
	g.failures++
	g.owed = true
	wait := w.opts.GroupInterval
	if retry, ok := errors.AsType[*retryError](err); ok {
		wait = max(retry.after, time.Second<<min(g.failures-1, 8))
		wait += time.Duration(rand.Int64N(int64(wait)/5 + 1)) // so that instances do not come back together
	}
	g.next = w.now.Add(wait)
	w.lastFail = w.now
	if w.failing.IsZero() {
		w.failing = w.now
	}
	if !w.logged { // once, until one arrives
		w.logged = true
		w.opts.Logger.Warn("metrics: a notification was not delivered", "receiver", w.url.Host, "group", m.key, "error", err)
	}
}

func (w *Webhook) groupLabels(a Alert) map[string]string {
	out := map[string]string{}
	for _, name := range w.opts.GroupBy {
		if value, ok := a.Labels[name]; ok {
			out[name] = value
		}
	}
	return out
}

// groupKey is as Alertmanager's: the route, which is always the root here, and the group's labels.
func groupKey(labels map[string]string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, name+"="+quoted(labels[name]))
	}
	return "{}:{" + strings.Join(words, ", ") + "}"
}
