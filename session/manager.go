package session

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/metrics"
)

// backend is what a Manager needs of its store: Store, or plain around another.
type backend interface {
	scs.CtxStore
	Ready(ctx context.Context) error
	look(ctx context.Context, token string) (loaded, error)
	limit(ctx context.Context, at place, deadline time.Time, idle time.Duration)
	counter() *prometheus.CounterVec
	common() *shelf
}

// Manager serves sessions. Its methods are safe for concurrent use.
type Manager struct {
	scs        *scs.SessionManager
	scsKey     any // by which scs finds its data in a context
	store      backend
	opts       Options
	commands   *prometheus.CounterVec
	principals *principals // nil for other stores
	watch      *watch      // nil for other stores
	recent     *recent
	running    atomic.Bool
	since      time.Time
}

// New returns a manager whose sessions are kept on rdb: a single node, Sentinel or a cluster. It does no I/O.
func New(rdb redis.UniversalClient, opts *Options) (*Manager, error) {
	store, err := NewStore(rdb, opts)
	if err != nil {
		return nil, err
	}
	return newManager(store, opts), nil
}

// NewWithStore returns a manager on another store of scs, such as scs/redisstore.New(pool) for a single Redis node.
// Prefix is then the store's own affair, but TokenForm and Secrets count. A Store is taken too, with the IdleTimeout that it was made with.
//
// Such a store cannot compare before it writes, so some promises are weaker: a session that is logged out in the very
// moment of another request's commit can come back, parallel requests overwrite each other's values, and a store
// without contexts, as redisstore is, waits as long as its own timeouts say: set them in its pool. An IdleTimeout is
// refused, because without GETEX each refresh would be a write that can revive a session.
func NewWithStore(store scs.Store, opts *Options) (*Manager, error) {
	o := opts.withDefaults()
	err := o.validate()
	own, isOwn := store.(*Store)
	if store == nil || isOwn && own == nil {
		return nil, errors.Join(errors.New("session: NewWithStore needs a store"), err)
	}
	if isOwn && err == nil {
		return newManager(own, &o), nil
	}
	if o.IdleTimeout != 0 && !isOwn {
		err = errors.Join(err, errors.New("session: Options.IdleTimeout needs a store that can refresh without writing, use New"))
	}
	if err != nil {
		return nil, err
	}
	commands, err := metrics.NewCounter(o.Registerer, metrics.SessionCommands)
	if err != nil {
		return nil, err
	}
	shelf, err := newShelf(&o)
	if err != nil {
		return nil, err
	}
	return newManager(&plain{store: store, commands: commands, shelf: shelf}, &o), nil
}

func newManager(store backend, opts *Options) *Manager {
	o := opts.withDefaults()
	sm := scs.New()
	sm.Codec = tolerant{store.common().codec}
	if own, ok := store.(*Store); ok { // others may use it with another codec
		view := *own
		store = &view
	}
	store.common().codec = codecOf{sm}
	sm.Store, sm.Lifetime = store, o.Lifetime
	sm.Cookie = scs.SessionCookie{
		Name: o.CookieName, Path: "/", HttpOnly: true, Secure: !o.Insecure, SameSite: http.SameSiteLaxMode, Persist: true,
	}
	m := &Manager{scs: sm, scsKey: scsKey(sm), store: store, opts: o, commands: store.counter(), recent: store.common().recent, since: time.Now()}
	if o.OnStoreDown == Degrade {
		m.recent.wanted.Store(true)
	}
	if own, ok := store.(*Store); ok {
		m.principals = &principals{store: own}
		m.watch = &watch{store: own, principals: m.principals, by: map[string]map[*watcher]struct{}{}}
	}
	return m
}

// asked remembers by which key it was asked.
type asked struct {
	context.Context
	key any
}

func (a *asked) Value(key any) any {
	a.key = key
	return nil
}

// scsKey learns the key by which scs finds its data: it is private, and Load looks for it first.
func scsKey(sm *scs.SessionManager) any {
	a := &asked{Context: context.Background()}
	_, _ = sm.Load(a, "")
	return a.key
}

// SCS returns scs's own manager, for Get, Put and all that scs offers, under r.Context() below Middleware. Its Cookie and
// Codec may be changed before the first request.
func (m *Manager) SCS() *scs.SessionManager { return m.scs }

// Ready returns nil if the store answers.
func (m *Manager) Ready(ctx context.Context) error { return m.store.Ready(ctx) }

func (m *Manager) count(operation, outcome string) {
	m.commands.WithLabelValues(operation, outcome).Inc()
}
