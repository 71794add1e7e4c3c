package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// Store is the cache of one prefix in one Redis. Its methods are safe for concurrent use.
type Store struct {
	id     string                // of this process among those that share the prefix
	rdb    redis.UniversalClient // nil for a store that is in the process only
	opts   Options
	in     *instruments
	origin *governor
	born   time.Time

	mu     sync.Mutex
	views  map[string]*viewState
	broken []error // of Of and Declare, for Ready
	sets   map[string]*warmSet

	byName    atomic.Pointer[map[string]*viewState]
	extension atomic.Pointer[extending]
	localOff  atomic.Bool
	remoteOff atomic.Bool

	coverage   coverage
	marked     atomic.Pointer[marking] // whether somebody wants changes published
	lanes      lanes
	untracked  atomic.Bool // a server refuses to tell what changes
	ahead      atomic.Int64
	clock      clock
	rules      atomic.Pointer[rules]
	ruling     ruleState
	tags       tagStates
	waits      waits
	queued     turnQueue
	suspects   suspects
	sweepTill  atomic.Int64 // by the store's clock
	debts      debts        // what could not be invalidated yet
	leaseMarks leaseMarks
	heat       heat
	runs       atomic.Bool
	warmed     atomic.Bool // the first warming has ended

	kicked, rulesMoved, clockMoved, ttlMoved, sweepMoved bell
}

// New returns a Store on a client, which it never closes: a *redis.Client for one node or Sentinel, or a
// *redis.ClusterClient that reads from masters. It does no I/O: a Redis that is down shows in Ready.
func New(rdb redis.UniversalClient, opts *Options) (*Store, error) {
	if err := checkClient(rdb); err != nil {
		return nil, errors.Join(err, opts.copy().withDefaults().validate())
	}
	s, err := open(rdb, opts)
	if err != nil {
		return nil, err
	}
	for _, warning := range redisclient.Check(rdb) {
		s.opts.Logger.Warn("cache: the Redis client will hurt when Redis fails", "warning", warning, "prefix", s.opts.Prefix)
	}
	return s, nil
}

// NewLocal returns a Store without Redis: what its views keep is in this process alone (see InProcess), and so is what
// invalidates it. What callers who invalidate have written is not remembered: callers who wrote nothing may then be given what
// a replica that lags has answered, until its TTL ends. Everything else is as with Redis.
func NewLocal(opts *Options) (*Store, error) { return open(nil, opts) }

func open(rdb redis.UniversalClient, opts *Options) (*Store, error) {
	o := opts.copy().withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	in, err := newInstruments(o)
	if err != nil {
		return nil, err
	}
	s := &Store{
		id:         rand.Text(),
		rdb:        rdb,
		opts:       o,
		in:         in,
		origin:     newGovernor(o),
		born:       time.Now(),
		views:      make(map[string]*viewState),
		sets:       make(map[string]*warmSet),
		suspects:   newSuspects(),
		kicked:     newBell(),
		rulesMoved: newBell(),
		clockMoved: newBell(),
		ttlMoved:   newBell(),
		sweepMoved: newBell(),
		ruling:     ruleState{reading: make(chan struct{}, 1)},
	}
	s.byName.Store(&map[string]*viewState{})
	s.coverage.silence = o.Silence
	s.coverage.newGuard = func(addr string) *guard { return newGuard(addr, in) }
	if rdb == nil {
		s.coverage.slots[0].Store(newCover("", always))
		s.rules.Store(&rules{cover: s.coverage.slots[0].Load()})
		return s, nil
	}
	_, s.coverage.clustered = rdb.(*redis.ClusterClient)
	return s, nil
}

// Levels says which levels of the cache are used.
type Levels struct {
	// InProcess is the level in the process, for views that have it.
	InProcess bool
	// Redis is the level that all processes share.
	Redis bool
}

// Use switches levels off and on, in this process, for what goes wrong in one of them. Without Redis nothing is looked up or
// stored there; Delete, Set and the invalidations go there all the same. All levels are on at first.
func (s *Store) Use(l Levels) {
	s.localOff.Store(!l.InProcess)
	s.remoteOff.Store(!l.Redis)
}

func (s *Store) redisOff() bool { return s.rdb == nil || s.remoteOff.Load() }

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

// Ready reports whether every master answers within Options.RedisTimeout, whether all views and warm sets were declared
// without mistake, and, with WarmBeforeReady, whether the first warming has ended. Once it has returned nil, what was
// invalidated before the store was made is not served, whether or not Redis still has it. A cache that is not ready still
// serves: it misses.
func (s *Store) Ready(ctx context.Context) error {
	s.mu.Lock()
	errs := append([]error(nil), s.broken...)
	s.mu.Unlock()
	if s.opts.WarmBeforeReady > 0 && !s.warmed.Load() {
		errs = append(errs, errWarming)
	}
	if s.rdb == nil {
		return errors.Join(errs...)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	err := redisclient.EachMaster(ctx, s.rdb, func(ctx context.Context, node *redis.Client) error { return node.Ping(ctx).Err() })
	if err == nil && s.rules.Load().unsure() {
		err = s.followRules(ctx)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("cache: Redis does not answer, its keys are misses until it does: %w", err))
	}
	return errors.Join(errs...)
}
