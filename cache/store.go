package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/semaphore"

	"github.com/scaleaware/scaleaware/redisclient"
)

// Store is the cache of one prefix in one Redis. Its methods are safe for concurrent use.
type Store struct {
	id    string // of this process among those that share the prefix
	rdb   redis.UniversalClient
	opts  Options
	in    *instruments
	loads *semaphore.Weighted

	mu     sync.Mutex
	views  map[string]*viewState
	broken []error // of Of and Declare, for Ready
	sets   map[string]*warmSet

	extension atomic.Pointer[Extension] // in force now; nil for none
}

// New returns a Store on a client, which it never closes: a *redis.Client for one node or Sentinel, or a
// *redis.ClusterClient that reads from masters. It does no I/O: a Redis that is down shows in Ready.
func New(rdb redis.UniversalClient, opts *Options) (*Store, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	o = o.withDefaults()
	if err := errors.Join(checkClient(rdb), o.validate()); err != nil {
		return nil, err
	}
	in, err := newInstruments(o)
	if err != nil {
		return nil, err
	}
	for _, warning := range redisclient.Check(rdb) {
		o.Logger.Warn("cache: the Redis client will hurt when Redis fails", "warning", warning, "prefix", o.Prefix)
	}
	return &Store{
		id:    rand.Text(),
		rdb:   rdb,
		opts:  o,
		in:    in,
		loads: semaphore.NewWeighted(int64(o.MaxLoads)),
		views: make(map[string]*viewState),
		sets:  make(map[string]*warmSet),
	}, nil
}

func checkClient(rdb redis.UniversalClient) error {
	switch c := rdb.(type) {
	case nil:
		return errors.New("cache: the Redis client is nil, give a *redis.Client or a *redis.ClusterClient")
	case *redis.Client:
		return nil
	case *redis.ClusterClient:
		if o := c.Options(); o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			return errors.New("cache: the cluster client reads from replicas, which still have what was invalidated; give one without ReadOnly, RouteByLatency and RouteRandomly")
		}
		return nil
	default:
		return fmt.Errorf("cache: %T is of a kind whose masters cannot be found, give a *redis.Client or a *redis.ClusterClient", rdb)
	}
}

// Ready reports whether every master answers within Options.RedisTimeout, and whether all views and warm sets were
// declared without mistake. A cache that is not ready still serves: it misses.
func (s *Store) Ready(ctx context.Context) error {
	s.mu.Lock()
	errs := append([]error(nil), s.broken...)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	err := redisclient.EachMaster(ctx, s.rdb, func(ctx context.Context, node *redis.Client) error { return node.Ping(ctx).Err() })
	if err != nil {
		errs = append(errs, fmt.Errorf("cache: Redis does not answer, its keys are misses until it does: %w", err))
	}
	return errors.Join(errs...)
}
