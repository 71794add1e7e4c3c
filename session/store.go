package session

import (
	"context"
	"crypto/sha1" // #nosec G505 -- Redis scripts offer SHA-1 only; it tells versions apart and protects nothing
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/redisclient"
)

// mergeTries bounds how often a commit gives way to another writer of the same session, besides StoreTimeout.
const mergeTries = 10_000

// turns is how many sessions that have conflicts can be written again at the same time in one process.
const turns = 64

// tombstone is how long a destroyed token refuses to be written, even by a writer that has not loaded it.
const tombstone = time.Minute

// Store keeps scs's sessions in Redis: a single node, Sentinel or a cluster. It is an scs.CtxStore and an
// scs.IterableCtxStore. Keys and values are those of scs/redisstore under scs with HashTokenInStore, or what
// Options.TokenForm and Options.Secrets make of them.
//
// Under Manager.Middleware a commit replaces only what was loaded, merging with what others stored meanwhile. With scs
// alone, which does not say what it loaded, a commit overwrites, but not within a minute of the session's destruction.
type Store struct {
	rdb      redis.UniversalClient
	opts     Options
	commands *prometheus.CounterVec
	shelf
	turns [turns]chan struct{}
}

var (
	_ scs.CtxStore         = (*Store)(nil)
	_ scs.IterableCtxStore = (*Store)(nil)
)

// NewStore returns a store on rdb. Of the options it uses Prefix, TokenForm, Secrets, AcceptPlain, IdleTimeout,
// StoreTimeout, Logger and Registerer.
func NewStore(rdb redis.UniversalClient, opts *Options) (*Store, error) {
	o := opts.withDefaults()
	err := o.validate()
	if rdb == nil {
		err = errors.Join(errors.New("session: New needs a Redis client"), err)
	}
	if _, ok := rdb.(*redis.ClusterClient); ok && o.TokenForm == MoveRaw {
		err = errors.Join(err, errors.New("session: Options.TokenForm is MoveRaw, which works on one node only: move the sessions there, or use Hashed or Raw"))
	}
	if err != nil {
		return nil, err
	}
	shelf, err := newShelf(&o)
	if err != nil {
		return nil, err
	}
	commands, err := metrics.NewCounter(o.Registerer, metrics.SessionCommands)
	if err != nil {
		return nil, err
	}
	for _, warning := range redisclient.Check(rdb) {
		o.Logger.Warn("session: the Redis client will hurt when Redis fails", "problem", warning)
	}
	s := &Store{rdb: rdb, opts: o, commands: commands, shelf: shelf}
	for i := range s.turns {
		s.turns[i] = make(chan struct{}, 1)
	}
	return s, nil
}

// FindCtx implements scs.CtxStore. With an IdleTimeout it also refreshes the session, in the same command.
func (s *Store) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	if l := loadedOf(ctx, token); l != nil && l.found {
		return l.value, true, nil
	}
	found, err := s.look(ctx, token)
	return found.value, found.found, err
}

func (s *Store) look(ctx context.Context, token string) (loaded, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.StoreTimeout)
	defer cancel()
	return s.find(ctx, token)
}

// moveTries bounds how often a session that is written meanwhile is moved again.
const moveTries = 3

// find looks at each place where the session may be.
func (s *Store) find(ctx context.Context, token string) (out loaded, err error) {
	places, n := s.locator.places(token)
	if n == 0 {
		s.count("find", "malformed")
		return out, nil
	}
	for range moveTries {
		for i, at := range places[:n] {
			stored, err := s.get(ctx, at)
			if errors.Is(err, redis.Nil) {
				continue
			}
			if err != nil {
				return out, s.failed("find", err)
			}
			value, err := s.vault.open(at, stored)
			switch {
			case errors.Is(err, errHashed):
				continue
			case err != nil:
				s.count("find", "undecryptable")
				s.opts.Logger.WarnContext(ctx, "session: stored data cannot be used, its owner gets a new session", "error", err)
				return out, nil
			}
			out = loaded{token: token, at: at, stored: stored, value: value, found: true}
			if s.locator.form == MoveRaw && i == 1 {
				if out, err = s.move(ctx, places[0], out); err != nil {
					return out, err
				}
				if !out.found {
					break // somebody else has moved or written it: look again
				}
			}
			s.count("find", "hit")
			return out, nil
		}
		if s.locator.form != MoveRaw {
			break
		}
	}
	s.count("find", "miss")
	return out, nil
}

// move returns what was found at its new place, or nothing if it is no longer where it was found.
func (s *Store) move(ctx context.Context, to place, was loaded) (loaded, error) {
	stored := s.vault.seal(to, was.value)
	keys := append(s.keys(to), s.key(was.at))
	moved, err := moveScript.Run(ctx, s.rdb, keys, stored, version(was.stored), s.opts.Lifetime.Milliseconds()).Int()
	if err != nil {
		return loaded{}, s.failed("move", err)
	}
	if moved == 0 {
		return loaded{}, nil
	}
	s.count("move", "ok")
	was.at, was.stored = to, stored
	return was, nil
}

// get uses GETEX even without a timeout to set: it counts as a write, so that a cluster client that sends reads to
// replicas asks the master all the same.
func (s *Store) get(ctx context.Context, at place) ([]byte, error) {
	args := []any{"getex", s.key(at)}
	if s.opts.IdleTimeout > 0 {
		args = append(args, "px", s.opts.IdleTimeout.Milliseconds())
	}
	text, err := s.rdb.Do(ctx, args...).Text()
	return []byte(text), err
}

// CommitCtx implements scs.CtxStore. It returns ErrRevoked if the session has gone since it was loaded.
func (s *Store) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	places, n := s.locator.places(token)
	if n == 0 {
		s.count("commit", "malformed")
		return errors.New("session: cannot store a token that scs did not make")
	}
	was := loaded{at: places[0]}
	if l := loadedOf(ctx, token); l != nil && l.found {
		was = *l
	}
	idle := s.opts.IdleTimeout
	if own, ok := ctx.Value(idleKeyOf{}).(*time.Duration); ok {
		idle = *own
	}
	call, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	waited := false
	for range mergeTries {
		now, err := s.commit(call, was, b, expiry, idle)
		if err != nil || now == nil {
			return err
		}
		s.count("commit", "conflict")
		if !waited {
			// In a process one at a time tries again: the others would only make it fail again.
			turn := s.turns[was.at.name[0]%turns]
			select {
			case turn <- struct{}{}:
				defer func() { <-turn }()
			case <-call.Done():
				return s.failed("commit", call.Err())
			}
			waited = true
		}
		theirs, err := s.vault.open(was.at, now)
		if err != nil {
			s.count("commit", "undecryptable")
			return fmt.Errorf("%w: another instance has stored what this one cannot read: %w", ErrUnavailable, err)
		}
		if b, expiry, err = merge(s.codec, was.value, b, theirs, expiry); err != nil {
			return err
		}
		was.stored, was.value = now, theirs
	}
	s.count("commit", "contended")
	return fmt.Errorf("%w: other requests of this session keep writing it", ErrUnavailable)
}

// commit tries once. When somebody else has stored something since, it returns that.
func (s *Store) commit(ctx context.Context, was loaded, b []byte, expiry time.Time, idle time.Duration) ([]byte, error) {
	ttl := time.Until(expiry)
	if idle > 0 {
		ttl = min(ttl, idle)
	}
	if ttl < time.Millisecond {
		// SET would refuse this, or with some clients store it for ever.
		s.count("commit", "expired")
		return nil, ErrRevoked
	}
	expected := ""
	if was.found {
		expected = version(was.stored)
	}
	reply, err := commitScript.Run(ctx, s.rdb, s.keys(was.at), s.vault.seal(was.at, b), ttl.Milliseconds(), expected).Result()
	if err != nil {
		return nil, s.failed("commit", err)
	}
	switch reply := reply.(type) {
	case string:
		return []byte(reply), nil
	case int64:
		if reply == 1 {
			s.count("commit", "ok")
			return nil, nil
		}
	}
	s.count("commit", "revoked")
	return nil, ErrRevoked
}

func version(stored []byte) string {
	sum := sha1.Sum(stored) // #nosec G401 -- see the import
	return hex.EncodeToString(sum[:])
}

// DeleteCtx implements scs.CtxStore.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	ctx, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	places, n := s.locator.places(token)
	for _, at := range places[:n] {
		if err := s.delete(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) delete(ctx context.Context, at place) error {
	err := deleteScript.Run(ctx, s.rdb, s.keys(at), tombstone.Milliseconds(), s.channel(), sessionNews(at.id())).Err()
	if err != nil {
		return s.failed("delete", err)
	}
	s.count("delete", "ok")
	return nil
}

// Find implements scs.Store.
func (s *Store) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// Commit implements scs.Store.
func (s *Store) Commit(token string, b []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, b, expiry)
}

// Delete implements scs.Store.
func (s *Store) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// Ready returns nil if Redis answers.
func (s *Store) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.StoreTimeout)
	defer cancel()
	if err := s.rdb.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// limit moves a session's end where reading it has put it wrong: to its deadline if that is earlier, or to an idle timeout of
// its own.
func (s *Store) limit(ctx context.Context, at place, deadline time.Time, idle time.Duration) {
	end := deadline
	if idle > 0 && time.Until(deadline) >= idle {
		if idle == s.opts.IdleTimeout {
			return
		}
		end = time.Now().Add(idle)
	} else if s.opts.IdleTimeout == 0 && idle == 0 {
		return
	}
	ctx, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	if err := s.rdb.PExpireAt(ctx, s.key(at), end).Err(); err != nil {
		s.opts.Logger.WarnContext(ctx, "session: a session may outlive its deadline in Redis", "error", s.failed("limit", err))
	}
}

func (s *Store) key(at place) string { return s.opts.Prefix + at.name }

// keys are the session's and its tombstone's. The braces put both on the same slot of a cluster.
func (s *Store) keys(at place) []string {
	return []string{s.key(at), "{" + s.key(at) + "}:gone"}
}

func (s *Store) count(operation, outcome string) {
	s.commands.WithLabelValues(operation, outcome).Inc()
}

func (s *Store) failed(operation string, err error) error {
	s.count(operation, outcomeOf(err))
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, operation, err)
}

func outcomeOf(err error) string {
	if errors.Is(err, context.Canceled) {
		return "canceled" // the client has gone, the store may be well
	}
	return "error"
}

func (s *Store) counter() *prometheus.CounterVec { return s.commands }

// detached keeps the deadline of ctx, at most timeout away, and drops its cancellation: a client that hangs up after
// its write was committed must find it with its next request.
func detached(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	end := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	return context.WithDeadline(context.WithoutCancel(ctx), end)
}
