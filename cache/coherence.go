package cache

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// kickPause is the least time between two looks at which masters there are.
const kickPause = 100 * time.Millisecond

// runCoherence keeps a watch on every master, follows up the news about the store's own keys, and looks again at what
// TTL extensions touched.
func (s *Store) runCoherence(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.followNews(ctx) })
	wg.Go(func() { s.runSuspects(ctx) })
	wg.Go(func() { s.runPublished(ctx) })
	watched := watches{}
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		masters := map[string]*redis.Client{}
		var mu sync.Mutex
		err := redisclient.EachMaster(ctx, s.rdb, func(_ context.Context, node *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			masters[node.Options().Addr] = node
			return nil
		})
		if err != nil && ctx.Err() == nil {
			s.in.failed(ctx, "watch", err)
		}
		if err == nil {
			watched.follow(ctx, masters, s.watchNode)
		}
		select {
		case <-ctx.Done():
			watched.end()
			return nil
		case <-ticker.C:
		case <-s.kicked:
			if sleep(ctx, kickPause) != nil {
				continue
			}
			if cluster, ok := s.rdb.(*redis.ClusterClient); ok {
				cluster.ReloadState(ctx)
			}
		}
	}
}

// watches are those on masters, by address.
type watches map[string]watching

type watching struct {
	stop  context.CancelFunc
	ended chan struct{}
}

// follow begins to watch masters that are new, and ends it for what is none any more. One that comes back is watched again
// when the watch before has ended, which would take the other's place.
func (ws watches) follow(ctx context.Context, masters map[string]*redis.Client, watch func(context.Context, *redis.Client)) {
	for addr, w := range ws {
		if masters[addr] == nil {
			w.stop()
		}
		select {
		case <-w.ended:
			delete(ws, addr)
		default:
		}
	}
	for addr, node := range masters {
		if _, watched := ws[addr]; watched {
			continue
		}
		wctx, stop := context.WithCancel(ctx)
		w := watching{stop, make(chan struct{})}
		ws[addr] = w
		go func() {
			defer close(w.ended)
			watch(wctx, node)
		}()
	}
}

func (ws watches) end() {
	for _, w := range ws {
		w.stop()
	}
	for _, w := range ws {
		<-w.ended
	}
}

// bell wakes one goroutine, which looks at all there is since it looked last.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// kick makes the masters be looked for again now.
func (s *Store) kick() {
	s.kicked.ring()
	s.rulesMoved.ring()
	s.clockMoved.ring()
}

// followNews reads the store's own keys when they have changed.
func (s *Store) followNews(ctx context.Context) {
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-s.rulesMoved:
			if !s.rules.Load().current(s, s.now()) {
				err = s.followRules(ctx)
			}
		case <-s.clockMoved:
			err = s.followClock(ctx)
		case <-s.ttlMoved:
			err = s.follow(ctx)
		case <-s.sweepMoved:
			err = s.noteSweeping(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.in.failed(ctx, "follow", err)
		}
	}
}

// changed takes in that a key was set, removed, or given another TTL, by anybody.
func (s *Store) changed(key string) {
	rest, ours := strings.CutPrefix(key, s.opts.Prefix)
	if !ours {
		return
	}
	if meta, ok := strings.CutPrefix(rest, metaMark); ok {
		s.metaChanged(meta)
		return
	}
	name, id, _ := strings.Cut(rest, ":")
	if v := (*s.byName.Load())[name]; v != nil {
		v.keyChanged(id)
	}
	s.waits.wake(key)
}

func (s *Store) metaChanged(meta string) {
	switch {
	case meta == "rules":
		s.ruling.fence.Add(1)
		s.rulesMoved.ring()
	case meta == "clock":
		s.clock.fence.Add(1)
		s.clockMoved.ring()
	case meta == "ttl":
		s.ttlMoved.ring()
	case meta == "sweeping":
		s.sweepMoved.ring()
	case meta == leaseMark:
		s.leaseMarks.fence.Add(1)
	default: // whoever raises the floor of a tag raises the tag, too
		hash, ok := strings.CutPrefix(meta, "tag:")
		if n, err := strconv.ParseUint(hash, 16, 64); ok && err == nil {
			s.tags.forget(tagHash(n))
			s.forgetFlights() // nobody knows the tags of what is being loaded
		}
	}
}

// waits are those who wait for a key to change.
type waits struct {
	mu    sync.Mutex
	byKey map[string][]chan struct{}
}

// on returns a channel that is closed when the key changes, and a function that gives it back.
func (w *waits) on(key string) (changed <-chan struct{}, done func()) {
	ch := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey == nil {
		w.byKey = make(map[string][]chan struct{})
	}
	w.byKey[key] = append(w.byKey[key], ch)
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		kept := w.byKey[key][:0]
		for _, other := range w.byKey[key] {
			if other != ch {
				kept = append(kept, other)
			}
		}
		if w.byKey[key] = kept; len(kept) == 0 {
			delete(w.byKey, key)
		}
	}
}

func (w *waits) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ch := range w.byKey[key] {
		close(ch)
	}
	delete(w.byKey, key)
}

func (s *Store) wakeAll() {
	s.waits.mu.Lock()
	defer s.waits.mu.Unlock()
	for key, chans := range s.waits.byKey {
		for _, ch := range chans {
			close(ch)
		}
		delete(s.waits.byKey, key)
	}
}
