package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/redisclient"
)

// tombstone is how long a destroyed token refuses to be written, even by a writer that has not loaded it.
const tombstone = time.Minute

// openTombstone is how long a request may go on after it has renewed its token. Later its session is not stored: nobody can tell
// whether it was ended meanwhile.
const openTombstone = 15 * time.Minute

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
	idle     any // milliseconds of IdleTimeout, in the form of an argument
	shelf
	crews *crews
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
	return &Store{rdb: rdb, opts: o, commands: commands, idle: o.IdleTimeout.Milliseconds(), shelf: shelf, crews: new(crews)}, nil
}

// FindCtx implements scs.CtxStore. With an IdleTimeout it also refreshes the session, in the same command.
func (s *Store) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	if l := loadedOf(ctx, token); l != nil && l.found {
		return []byte(l.value), true, nil
	}
	found, err := s.look(ctx, token)
	return []byte(found.value), found.found, err
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
	places, keys, n := s.locator.keys(s.opts.Prefix, token)
	if n == 0 {
		s.count("find", "malformed")
		return out, nil
	}
	for range moveTries {
		for i, at := range places[:n] {
			stored, err := s.get(ctx, keys[i])
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
	stored := s.vault.seal(to, []byte(was.value))
	keys := append(s.keys(to), s.key(was.at))
	moved, err := moveScript.Run(ctx, s.rdb, keys, stored, version(was.stored), s.opts.Lifetime.Milliseconds()).Int()
	if err != nil {
		return loaded{}, s.failed("move", err)
	}
	if moved == 0 {
		return loaded{}, nil
	}
	s.count("move", "ok")
	was.at, was.stored = to, string(stored)
	return was, nil
}

// get uses GETEX even without a timeout to set: it counts as a write, so that a cluster client that sends reads to
// replicas asks the master all the same.
func (s *Store) get(ctx context.Context, key string) (string, error) {
	var cmd *redis.StringCmd
	if s.opts.IdleTimeout > 0 {
		cmd = redis.NewStringCmd(ctx, "getex", key, "px", s.idle)
	} else {
		cmd = redis.NewStringCmd(ctx, "getex", key)
	}
	_ = s.rdb.Process(ctx, cmd) // the command has its error
	return cmd.Result()
}

// DeleteCtx implements scs.CtxStore. It cannot know whether scs renews the token or destroys the session, so the tombstone
// of a request that Middleware will finish stays open until then. Such a request gets ErrRevoked if its session was ended, or
// renewed, since it was loaded.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	ctx, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	places, n := s.locator.places(token)
	renewal := renewalOf(ctx, token)
	gone := renewal.deleted()
	if strings.HasPrefix(gone, pending) {
		at := loadedOf(ctx, token).at
		if err := s.delete(ctx, renewScript, at, gone); err != nil {
			if errors.Is(err, ErrRevoked) {
				renewal.open.Store(false) // if it is open then another request's
			}
			return err
		}
		if places[0] == at {
			places[0] = places[1]
		}
		n--
	}
	for _, at := range places[:n] {
		if err := s.delete(ctx, deleteScript, at, gone); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) delete(ctx context.Context, script *redis.Script, at place, gone string) error {
	life := tombstone
	if strings.HasPrefix(gone, pending) {
		life = openTombstone
	}
	done, err := script.Run(ctx, s.rdb, s.keys(at), life.Milliseconds(), s.channel(), sessionNews(at.id()), gone).Int()
	s.recent.forget(at.id()) // even on an error: it may have been done
	if err != nil {
		return s.failed("delete", err)
	}
	if done == 0 {
		s.count("delete", "revoked")
		return ErrRevoked
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
