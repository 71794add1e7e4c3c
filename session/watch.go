package session

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// watchEvery is how often watched sessions are looked at, for the case that news got lost, as long as there are no more
	// than watchMost; with more it is less often, but as often as watchRarely says.
	watchEvery  = time.Second
	watchRarely = 5 * time.Second
	watchMost   = 2000
	// watchBatch is how many are looked at in one round trip.
	watchBatch = 200
	// unborn is how long a session that is watched before it was stored may not be there.
	unborn = 10 * time.Second
)

// News that instances tell each other: what may have ended. Whoever hears it looks, so a forged one does nothing.
func sessionNews(id string) string          { return "s" + id }
func principalNews(principal string) string { return "p" + hash(principal) }

// watcher waits for the end of one session.
type watcher struct {
	at                    place
	principal, generation string
	login                 *request  // whose log-in gets its generation when it is stored
	absent                time.Time // before it, absence does not count
	end                   context.CancelCauseFunc
}

// revoked reports whether the principal was logged out everywhere. current is the principal's generation.
func (w *watcher) revoked(current string) bool {
	generation := w.generation
	if w.login != nil {
		if generation = w.login.text(generationKey); generation == "" {
			return false // it is not stored yet
		}
	}
	return !counts(current, generation)
}

// watch is all watchers of this process, by the news that concern them.
type watch struct {
	store      *Store
	principals *principals
	mu         sync.Mutex
	by         map[string]map[*watcher]struct{}
}

// Watch returns a copy of ctx for what outlives a request's usual length, a WebSocket or a stream of events: it ends when the
// session does, whoever ends it on whatever instance, with ErrRevoked as its cause. Renewing the token ends it, too.
// While Run runs that takes a moment. If Redis loses the news it takes a look at the sessions: each second while this process
// watches up to 2,000, with more of them less often, and every five seconds from 10,000 on; a LogoutEverywhere is noticed
// within 300 ms even then. Without Run only the session's deadline ends it. Nobody's session never ends. Call the function that is returned when the connection is gone.
func (m *Manager) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	q := m.request(ctx)
	if q == nil || q.fetch() != nil {
		return context.WithCancel(ctx)
	}
	w := &watcher{at: q.loaded.at, principal: q.text(principalKey), generation: q.text(generationKey)}
	token, deadline := q.loaded.token, q.view.deadline
	if q.used() {
		token, deadline = m.scs.Token(q), m.scs.Deadline(q)
	}
	if token == "" {
		return context.WithCancel(ctx)
	}
	q.mu.Lock()
	if q.login && w.generation == "" {
		w.login = q
	}
	q.mu.Unlock()
	ctx, stop := context.WithDeadlineCause(ctx, deadline, ErrRevoked)
	if m.watch == nil {
		return ctx, stop
	}
	if token != q.loaded.token {
		places, _ := m.watch.store.locator.places(token)
		w.at, w.absent = places[0], time.Now().Add(unborn)
	}
	if !m.running.Load() {
		m.opts.Logger.WarnContext(ctx, "session: Watch does not notice log-outs, call Manager.Run")
	}
	ctx, end := context.WithCancelCause(ctx)
	w.end = end
	remove := m.watch.add(w)
	return ctx, func() { remove(); stop(); end(nil) }
}

func (h *watch) add(w *watcher) (remove func()) {
	news := []string{sessionNews(w.at.id())}
	if w.principal != "" {
		news = append(news, principalNews(w.principal))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range news {
		if h.by[n] == nil {
			h.by[n] = map[*watcher]struct{}{}
		}
		h.by[n][w] = struct{}{}
	}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, n := range news {
			if delete(h.by[n], w); len(h.by[n]) == 0 {
				delete(h.by, n)
			}
		}
	}
}

// every is how long to wait before all are looked at again.
func (h *watch) every() time.Duration {
	n := time.Duration(len(h.concerned("")))
	return min(max(watchEvery, n*watchEvery/watchMost), watchRarely)
}

// concerned returns the watchers whom a piece of news concerns, all for the empty one.
func (h *watch) concerned(news string) []*watcher {
	h.mu.Lock()
	defer h.mu.Unlock()
	if news != "" {
		return slices.Collect(maps.Keys(h.by[news]))
	}
	all := map[*watcher]struct{}{}
	for _, some := range h.by {
		maps.Copy(all, some)
	}
	return slices.Collect(maps.Keys(all))
}

// check looks whether the sessions that news concern still are, and ends the watchers of those that are not. It gives up when
// Redis takes too long, but not when one of its masters is down.
func (h *watch) check(ctx context.Context, news string) error {
	var all error
	var slow net.Error
	for some := range slices.Chunk(h.concerned(news), watchBatch) {
		if err := h.look(ctx, some); err != nil {
			all = err
		}
		if ctx.Err() != nil || errors.As(all, &slow) && slow.Timeout() {
			break
		}
	}
	return all
}

// look ends nobody for whom there was no answer. go-redis returns the first error in the order of the commands, which may be
// that a key is not there, so each command is asked for its own.
func (h *watch) look(ctx context.Context, some []*watcher) error {
	ctx, cancel := context.WithTimeout(ctx, h.store.opts.StoreTimeout)
	defer cancel()
	exist := make([]*redis.IntCmd, len(some))
	generations := map[string]*redis.Cmd{}
	cmds, err := h.store.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, w := range some {
			exist[i] = pipe.Exists(ctx, h.store.key(w.at))
			if w.principal != "" && generations[w.principal] == nil {
				generations[w.principal] = pipe.Do(ctx, "getex", h.principals.keys(w.principal)[0])
			}
		}
		return nil
	})
	answered := func(err error) bool { return err == nil || errors.Is(err, redis.Nil) }
	silent := slices.IndexFunc(cmds, func(cmd redis.Cmder) bool { return !answered(cmd.Err()) })
	switch {
	case silent >= 0:
		err = h.store.failed("watch", cmds[silent].Err())
	case !answered(err):
		return h.store.failed("watch", err) // nothing was sent
	default:
		err = nil
	}
	now := time.Now()
	for i, w := range some {
		gone := exist[i].Err() == nil && exist[i].Val() == 0 && now.After(w.absent)
		if g := generations[w.principal]; g != nil && !gone && answered(g.Err()) {
			current, _ := g.Text()
			gone = w.revoked(current)
		}
		if gone {
			h.store.count("watch", "ended")
			w.end(ErrRevoked)
		}
	}
	return err
}
