package session

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis scripts offer SHA-1 only; it tells versions apart and protects nothing
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

// mergeTries bounds how often a commit gives way to another writer of the same session.
const mergeTries = 64

// tombstone is how long a destroyed token refuses to be written, even by a writer that has not loaded it.
const tombstone = time.Minute

// commitScript stores a session. KEYS: session, tombstone. ARGV: value, milliseconds to live, and the SHA-1 of the value
// that was loaded, empty for a new session. It returns 1 when stored, 0 when the session is gone, or the value that
// somebody else has stored since.
var commitScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if ARGV[3] ~= '' then
	local now = redis.call('GET', KEYS[1])
	if not now then return 0 end
	if redis.sha1hex(now) ~= ARGV[3] then return now end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

// deleteScript destroys a session and leaves the tombstone. KEYS: session, tombstone. ARGV: its milliseconds to live.
var deleteScript = redis.NewScript(`
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], '', 'PX', ARGV[1])
return 1`)

// Store keeps scs's sessions in Redis: a single node, Sentinel or a cluster. It is an scs.CtxStore and an
// scs.IterableCtxStore. Keys and values are those of scs/redisstore.
//
// Under Manager.Middleware a commit replaces only what was loaded, merging with what others stored meanwhile. With scs
// alone, which does not say what it loaded, a commit overwrites, but not within a minute of the session's destruction.
type Store struct {
	rdb      redis.UniversalClient
	opts     Options
	commands *prometheus.CounterVec
	codec    scs.Codec
}

var (
	_ scs.CtxStore         = (*Store)(nil)
	_ scs.IterableCtxStore = (*Store)(nil)
)

// NewStore returns a store on rdb. Of the options it uses Prefix, IdleTimeout, StoreTimeout, Logger and Registerer.
func NewStore(rdb redis.UniversalClient, opts *Options) (*Store, error) {
	o := opts.withDefaults()
	err := o.validate()
	if rdb == nil {
		err = errors.Join(errors.New("session: New needs a Redis client"), err)
	}
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
	return &Store{rdb: rdb, opts: o, commands: commands, codec: scs.GobCodec{}}, nil
}

// FindCtx implements scs.CtxStore. With an IdleTimeout it also refreshes the session, in the same command.
func (s *Store) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	if !wellFormed(token) {
		s.count("find", "malformed")
		return nil, false, nil
	}
	call, cancel := context.WithTimeout(ctx, s.opts.StoreTimeout)
	defer cancel()
	b, err := s.get(call, token)
	switch {
	case errors.Is(err, redis.Nil):
		s.count("find", "miss")
		return nil, false, nil
	case err != nil:
		return nil, false, s.failed("find", err)
	}
	s.count("find", "hit")
	loadedFrom(ctx).record(token, b)
	return b, true, nil
}

// get uses GETEX even without a timeout to set: it counts as a write, so that a cluster client that sends reads to
// replicas asks the master all the same.
func (s *Store) get(ctx context.Context, token string) ([]byte, error) {
	args := []any{"getex", s.key(token)}
	if s.opts.IdleTimeout > 0 {
		args = append(args, "px", s.opts.IdleTimeout.Milliseconds())
	}
	text, err := s.rdb.Do(ctx, args...).Text()
	return []byte(text), err
}

// CommitCtx implements scs.CtxStore. It returns ErrRevoked if the session has gone since it was loaded.
func (s *Store) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	if !wellFormed(token) {
		s.count("commit", "malformed")
		return errors.New("session: cannot store a token that scs did not make")
	}
	base, loaded := loadedFrom(ctx).base(token)
	call, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	for range mergeTries {
		now, err := s.commit(call, token, b, base, loaded, expiry)
		if err != nil || now == nil {
			return err
		}
		s.count("commit", "conflict")
		if b, expiry, err = merge(s.codec, base, b, now, expiry); err != nil {
			return err
		}
		base = now
	}
	s.count("commit", "contended")
	return fmt.Errorf("%w: other requests of this session keep writing it", ErrUnavailable)
}

// commit tries once. When somebody else has stored another value than base, it returns that.
func (s *Store) commit(ctx context.Context, token string, b, base []byte, loaded bool, expiry time.Time) ([]byte, error) {
	ttl := time.Until(expiry)
	if s.opts.IdleTimeout > 0 {
		ttl = min(ttl, s.opts.IdleTimeout)
	}
	if ttl < time.Millisecond {
		// SET would refuse this, or with some clients store it for ever.
		s.count("commit", "expired")
		return nil, ErrRevoked
	}
	version := ""
	if loaded {
		sum := sha1.Sum(base) //nolint:gosec // see the import
		version = hex.EncodeToString(sum[:])
	}
	reply, err := commitScript.Run(ctx, s.rdb, s.keys(token), b, ttl.Milliseconds(), version).Result()
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

// DeleteCtx implements scs.CtxStore.
func (s *Store) DeleteCtx(ctx context.Context, token string) error {
	if !wellFormed(token) {
		return nil
	}
	ctx, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	if err := deleteScript.Run(ctx, s.rdb, s.keys(token), tombstone.Milliseconds()).Err(); err != nil {
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

// limit ends a session at its deadline when an idle refresh has moved its end beyond.
func (s *Store) limit(ctx context.Context, token string, deadline time.Time) {
	if s.opts.IdleTimeout == 0 || time.Until(deadline) >= s.opts.IdleTimeout {
		return
	}
	ctx, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	if err := s.rdb.PExpireAt(ctx, s.key(token), deadline).Err(); err != nil {
		s.opts.Logger.WarnContext(ctx, "session: a session may outlive its deadline in Redis", "error", s.failed("limit", err))
	}
}

func (s *Store) key(token string) string { return s.opts.Prefix + token }

// keys are the session's and its tombstone's. The braces put both on the same slot of a cluster.
func (s *Store) keys(token string) []string {
	return []string{s.key(token), "{" + s.key(token) + "}:gone"}
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
