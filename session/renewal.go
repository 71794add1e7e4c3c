package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A token that was renewed leads nowhere: nobody is let in with it. But a request that had loaded the session before, and
// changed it, is to be treated as if it had stored that before the renewal. So the tombstone of a renewed token says where the
// session is now, and only a commit looks there. docs/adr/0013 says more.

// What a tombstone holds: nothing, for a session that has ended; that its request has not decided yet; or where it is now.
const (
	ended    = ""
	pending  = "?"
	toHashed = "h"
	toRaw    = "r"
)

// lookAgain is how often a commit looks whether a renewal has been stored.
const lookAgain = 5 * time.Millisecond

var (
	// errRenewed says that the session has another token now, or will have.
	errRenewed = errors.New("session: the token was renewed")
	// errOutdated says that a request came with a token that was renewed, and would replace the new one's cookie.
	errOutdated = errors.New("session: this request's token was renewed, so its client is about to have another one")
)

// renewal is what becomes of the token with which a request came.
type renewal struct {
	final   atomic.Bool // it ends: nothing follows
	open    atomic.Bool // its tombstone may wait for the end of the request
	follows atomic.Bool // this request's change was stored under a later token

	marked sync.Once
	mark   string
}

// pending is what the tombstone holds while it waits: a client that sends a renewal twice finds its own.
func (r *renewal) pending() string {
	r.marked.Do(func() { r.mark = pending + rand.Text() })
	return r.mark
}

type renewalKey struct{}

// renewalOf returns that of a request which has loaded token, or nil.
func renewalOf(ctx context.Context, token string) *renewal {
	if l := loadedOf(ctx, token); l == nil || !l.found {
		return nil
	}
	r, _ := ctx.Value(renewalKey{}).(*renewal)
	return r
}

// deleted returns what the tombstone is to hold.
func (r *renewal) deleted() string {
	if r == nil || r.final.Load() {
		return ended
	}
	r.open.Store(true)
	return r.pending()
}

func (r *renewal) follow() {
	if r != nil {
		r.follows.Store(true)
	}
}

// decide closes the tombstone that a request has left open. token is what the session has now, empty if it has ended. It
// returns ErrRevoked if somebody has ended the session since its token was renewed: it was no longer there to be found, so
// what is stored under the new token goes now. The same holds when nobody can tell.
func (q *request) decide(token string) error {
	own, ok := q.manager.store.(*Store)
	if !ok || !q.renewal.open.Swap(false) {
		return nil
	}
	to := ended
	if places, n := own.locator.places(token); n > 0 && !q.login {
		to = toRaw + places[0].name
		if places[0].hashed {
			to = toHashed + places[0].name
		}
	}
	ctx, cancel := detached(q.Context, own.opts.StoreTimeout)
	defer cancel()
	places, n := own.locator.places(q.loaded.token)
	var lost error
	for _, at := range places[:n] {
		done, err := decideScript.Run(ctx, own.rdb, own.keys(at)[1:], to, q.renewal.pending(), tombstone.Milliseconds()).Int()
		switch {
		case err != nil:
			lost = own.failed("renew", err)
		case done == 0:
			lost = ErrRevoked
		}
		if lost != nil {
			to = ended
		}
	}
	switch {
	case token == "" || q.login: // it goes nowhere
		return nil
	case lost == nil:
		own.count("renew", "ok")
		return nil
	case lost == ErrRevoked:
		own.count("renew", "revoked")
	}
	if err := own.DeleteCtx(ctx, token); err != nil {
		q.manager.opts.Logger.WarnContext(ctx, "session: the data of a session that was ended stay until they expire, nobody has its token", "error", err)
	}
	return lost
}

// follow makes c a change of the session under its later token. It returns ErrRevoked when that is somebody else's session, or
// of another log-in.
func (s *Store) follow(ctx context.Context, c *change) (*change, error) {
	to, text := c.base.at, ""
	for err := error(redis.Nil); errors.Is(err, redis.Nil); { // until it was not renewed once more
		if to, err = s.successor(ctx, to); err != nil {
			return nil, err
		}
		if text, err = s.rdb.Do(ctx, "getex", s.key(to)).Text(); err != nil && !errors.Is(err, redis.Nil) { // as get does
			return nil, s.failed("commit", err)
		}
	}
	theirs, err := s.vault.open(to, text)
	if err != nil {
		s.count("commit", "undecryptable")
		return nil, fmt.Errorf("%w: another instance has stored what this one cannot read: %w", ErrUnavailable, err)
	}
	if !s.sameLogin(c.base.value, theirs) {
		s.count("commit", "revoked")
		return nil, ErrRevoked
	}
	// It has no place in a crew yet.
	out := change{base: loaded{at: to, stored: text, value: theirs, found: true}, idle: c.idle}
	if out.mine, out.expiry, err = merge(s.codec, []byte(c.base.value), c.mine, []byte(theirs), c.expiry); err != nil {
		return nil, err
	}
	s.count("commit", "renewed")
	return &out, nil
}

// successor returns where a renewed session is now. It waits for a renewal that is under way.
func (s *Store) successor(ctx context.Context, at place) (place, error) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		gone, err := s.tombstone(ctx, at)
		switch {
		case err != nil:
			return place{}, s.failed("commit", err)
		case strings.HasPrefix(gone, toHashed):
			return place{gone[len(toHashed):], true}, nil
		case strings.HasPrefix(gone, toRaw):
			return place{gone[len(toRaw):], false}, nil
		case !strings.HasPrefix(gone, pending):
			s.count("commit", "revoked")
			return place{}, ErrRevoked
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return place{}, s.failed("commit", ctx.Err())
		}
	}
}

func (s *Store) tombstone(ctx context.Context, at place) (string, error) {
	gone, err := s.rdb.Do(ctx, "getex", s.keys(at)[1]).Text()
	if errors.Is(err, redis.Nil) {
		return ended, nil
	}
	return gone, err
}

// outdated reports whether a token that the store does not know was renewed lately.
func (s *Store) outdated(ctx context.Context, token string) (bool, error) {
	ctx, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	places, n := s.locator.places(token)
	for _, at := range places[:n] {
		gone, err := s.tombstone(ctx, at)
		if err != nil {
			return false, s.failed("commit", err)
		}
		if gone != ended {
			return true, nil
		}
	}
	return false, nil
}

// sameLogin compares who is logged in, and by which log-in.
func (s *Store) sameLogin(a, b string) bool {
	one, err1 := viewOf(tolerant{s.codec}, a)
	other, err2 := viewOf(tolerant{s.codec}, b)
	if err1 != nil || err2 != nil {
		return false
	}
	for _, key := range []string{principalKey, generationKey, deviceKey} {
		if one.text(key) != other.text(key) {
			return false
		}
	}
	return true
}
