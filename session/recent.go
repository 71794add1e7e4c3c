package session

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// outage is for how long Degrade serves what was read before.
	outage = time.Minute
	// maxRecent bounds what is kept for that: that many sessions are in memory up to twice.
	maxRecent = 10_000
)

// recent keeps what was last read of each session, for Degrade.
type recent struct {
	wanted     atomic.Bool // somebody uses Degrade
	mu         sync.Mutex
	young, old map[string]sighting
	turned     time.Time
}

type sighting struct {
	loaded
	at time.Time
}

func (r *recent) put(token string, l loaded) {
	if !r.wanted.Load() {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young == nil || len(r.young) >= maxRecent || now.Sub(r.turned) > outage {
		r.old, r.young, r.turned = r.young, map[string]sighting{}, now
	}
	r.young[hash(token)] = sighting{l, now}
}

func (r *recent) get(token string) (loaded, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := hash(token)
	s, ok := r.young[id]
	if !ok {
		s, ok = r.old[id]
	}
	return s.loaded, ok && time.Since(s.at) <= outage
}

// forget drops one session, or all for the empty id.
func (r *recent) forget(id string) {
	if !r.wanted.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if id == "" {
		r.young, r.old = nil, nil
		return
	}
	delete(r.young, id)
	delete(r.old, id)
}

// drop is forget for a token.
func (r *recent) drop(token string) {
	if r.wanted.Load() {
		r.forget(hash(token))
	}
}
