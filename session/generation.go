package session

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// fresh is how long a generation counts without anybody saying that the news of revocations comes in.
	fresh = time.Second
	// kept is how long it counts while it does, and the list of the latest revocations is looked at.
	kept = 10 * time.Second
	// maxGenerations bounds what is kept: that many are in memory up to twice.
	maxGenerations = 50_000
)

// generations remembers the generations of principals, so that not every request asks for one.
type generations struct {
	mu      sync.Mutex
	young   map[string]generation
	old     map[string]generation
	turned  time.Time
	epoch   atomic.Uint64 // of the news: it changes when some may have been missed
	heard   atomic.Int64  // when the latest sign of life that came in was sent, as UnixNano
	checked atomic.Int64  // when the list of the latest revocations was last asked for with success
	forgets uint64
	clock   func() time.Time // nil for the system's
}

type generation struct {
	current string
	moment
}

// moment is when a question was asked.
type moment struct {
	at      time.Time
	epoch   uint64
	forgets uint64
}

func (g *generations) now() moment {
	at := time.Now()
	if g.clock != nil {
		at = g.clock()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return moment{at, g.epoch.Load(), g.forgets}
}

// get returns what is known for sure enough.
func (g *generations) get(id string) (string, bool) {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	known, ok := g.young[id]
	if !ok {
		if known, ok = g.old[id]; !ok {
			return "", false
		}
	}
	age := now.at.Sub(known.at)
	hears := known.epoch == now.epoch && now.at.UnixNano()-min(g.heard.Load(), g.checked.Load()) <= int64(fresh)
	return known.current, age <= fresh || hears && age <= kept
}

// put keeps the answer to a question, unless news has come since it was asked.
func (g *generations) put(id, current string, asked moment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if asked.epoch != g.epoch.Load() || asked.forgets != g.forgets {
		return
	}
	if g.young == nil || len(g.young) >= maxGenerations || asked.at.Sub(g.turned) > kept {
		g.old, g.young, g.turned = g.young, map[string]generation{}, asked.at
	}
	g.young[id] = generation{current, asked}
}

// forget is what news of a revocation does: it also spoils questions that are under way.
func (g *generations) forget(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgets++
	delete(g.young, id)
	delete(g.old, id)
}

// lapse forgets everything: news may have been missed.
func (g *generations) lapse() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch.Add(1)
	g.young, g.old = nil, nil
}
