package session

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	redigo "github.com/gomodule/redigo/redis"
)

// pool is what the users of scs/redisstore have.
func pool(t testing.TB) *redigo.Pool {
	t.Helper()
	addr := single.Get(t).Addrs()[0]
	p := &redigo.Pool{Dial: func() (redigo.Conn, error) {
		return redigo.Dial("tcp", addr, redigo.DialReadTimeout(5*time.Second), redigo.DialConnectTimeout(5*time.Second))
	}}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func withStore(t testing.TB, store scs.Store, opts Options) *Manager {
	t.Helper()
	opts.Insecure = true
	m, err := NewWithStore(store, &opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A service that knows scs and redisstore only, not this package.
func before(t testing.TB, store scs.Store, hashed bool) *app {
	t.Helper()
	sm := scs.New()
	sm.Store, sm.HashTokenInStore = store, hashed
	mux := http.NewServeMux()
	mux.HandleFunc("/put", func(_ http.ResponseWriter, r *http.Request) {
		sm.Put(r.Context(), r.URL.Query().Get("key"), r.URL.Query().Get("value"))
	})
	mux.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, sm.GetString(r.Context(), r.URL.Query().Get("key")))
	})
	srv := httptest.NewServer(sm.LoadAndSave(mux))
	t.Cleanup(srv.Close)
	return &app{Manager: &Manager{scs: sm}, url: srv.URL}
}

// One browser goes from store to store and back and stays logged in, with its values.
func TestSessionsMoveBetweenStoresWithoutLoggingOut(t *testing.T) {
	for name, c := range map[string]struct {
		form   TokenForm
		hashed bool
	}{
		"scs hashes tokens":          {Hashed, true},
		"scs does not, side by side": {Raw, false},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := prefix(t)
			rdb := client(t, single)
			plainSCS := before(t, redisstore.NewWithPrefix(pool(t), prefix), c.hashed)
			onRedisstore := serve(t, withStore(t, redisstore.NewWithPrefix(pool(t), prefix), Options{TokenForm: c.form}))
			onOurs := serve(t, manager(t, rdb, Options{Prefix: prefix, TokenForm: c.form}))
			ownStore := serve(t, withStore(t, onOurs.store, Options{}))

			b := newBrowser(t)
			b.call(plainSCS, "put?key=cart&value=book")
			for _, a := range []*app{onOurs, onRedisstore, ownStore} {
				b.want(a, "get?key=cart", "book")
			}
			b.want(onOurs, "login?as=ada", "welcome")
			b.want(onRedisstore, "who", "ada")
			b.want(onRedisstore, "put?key=one&value=1", "put")
			b.want(onOurs, "get?key=one", "1")
			b.want(onOurs, "put?key=two&value=2", "put")
			b.call(plainSCS, "put?key=three&value=3")
			for _, a := range []*app{onOurs, onRedisstore, plainSCS} {
				b.want(a, "get?key=one", "1")
				b.want(a, "get?key=two", "2")
				b.want(a, "get?key=three", "3")
			}
			b.want(onRedisstore, "who", "ada")
			b.want(onRedisstore, "logout", "bye")
			b.want(onOurs, "who", "")

			again := newBrowser(t)
			again.want(onRedisstore, "login?as=ada", "welcome")
			again.want(onOurs, "who", "ada")
			again.want(onOurs, "logout", "bye")
			again.want(onRedisstore, "who", "")
			again.want(plainSCS, "get?key="+principalKey, "")
		})
	}
	if prefix := (*Options)(nil).withDefaults().Prefix; prefix != "scs:session:" {
		t.Errorf("the default prefix is %q, not that of redisstore", prefix)
	}
}

// From scs with raw tokens: first side by side, then alone and hashed; nobody is logged out, and no token stays in a key.
func TestRawSessionsAreMovedToHashes(t *testing.T) {
	prefix := prefix(t)
	rdb := client(t, single)
	old := before(t, redisstore.NewWithPrefix(pool(t), prefix), false)
	side := serve(t, manager(t, rdb, Options{Prefix: prefix, TokenForm: Raw}))
	stores := map[string]*app{
		"own":        serve(t, manager(t, rdb, Options{Prefix: prefix, TokenForm: MoveRaw})),
		"redisstore": serve(t, withStore(t, redisstore.NewWithPrefix(pool(t), prefix), Options{TokenForm: MoveRaw})),
	}
	done := serve(t, manager(t, rdb, Options{Prefix: prefix}))
	for name, moving := range stores {
		t.Run(name, func(t *testing.T) {
			b := newBrowser(t)
			b.call(old, "put?key=cart&value=book")
			b.want(side, "login?as=ada", "welcome")
			b.want(side, "put?key=cart&value=book", "put")
			b.want(old, "get?key=cart", "book")
			token := b.cookie(side)

			b.want(moving, "get?key=cart", "book")
			if rdb.Exists(t.Context(), prefix+token).Val() != 0 || rdb.Exists(t.Context(), prefix+hash(token)).Val() != 1 {
				t.Error("not moved")
			}
			if ttl := rdb.PTTL(t.Context(), prefix+hash(token)).Val(); ttl < 23*time.Hour || ttl > 24*time.Hour {
				t.Errorf("moved, it lives for %v", ttl)
			}
			b.want(side, "put?key=lang&value=en", "put") // an instance that is not replaced yet
			b.want(moving, "get?key=lang", "en")
			b.want(done, "get?key=lang", "en")
			b.want(done, "who", "ada")

			// Who reads the keys has no token, neither where raw ones are looked for.
			for _, a := range []*app{moving, side, done} {
				b.with(a, hash(token)).want(a, "who", "")
			}
			b.want(side, "logout", "bye")
			for _, a := range []*app{moving, side, done} {
				b.with(a, token).want(a, "who", "")
			}
		})
	}
}

func TestTokenTravelsThroughRedisstore(t *testing.T) {
	a := serve(t, withStore(t, redisstore.NewWithPrefix(pool(t), t.Name()+":"), Options{}))
	b := newBrowser(t)
	b.call(a, "login?as=ada")
	b.call(a, "put?key="+tokensKey+"&value=1:1:0/7")
	b.want(a, "reads", "1:1:0/7")
}

// Without an atomic compare this narrows the window to two commands; the gate holds it open on the safe side.
func TestRequestInFlightDoesNotReviveTheSessionInRedisstore(t *testing.T) {
	rdb := client(t, single)
	for ending, verb := range endings {
		t.Run(ending, func(t *testing.T) {
			prefix := t.Name() + ":"
			m := withStore(t, redisstore.NewWithPrefix(pool(t), prefix), Options{Prefix: prefix})
			notRevived(t, rdb, serve(t, m), verb, true)
		})
	}
}

func TestOtherStores(t *testing.T) {
	if _, err := NewWithStore(memstore.NewWithCleanupInterval(0), &Options{IdleTimeout: time.Hour}); err == nil {
		t.Error("an idle timeout on a store that cannot refresh was accepted")
	}
	a := serve(t, withStore(t, memstore.NewWithCleanupInterval(0), Options{}))
	b := newBrowser(t)
	b.want(a, "login?as=ada", "welcome")
	b.want(a, "who", "ada")
	if err := a.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	all, err := a.store.(*plain).AllCtx(t.Context())
	if err != nil || len(all) != 1 {
		t.Errorf("iterating: %d sessions, %v", len(all), err)
	}
	if err := a.store.Commit(tokenA, nil, time.Now()); err != ErrRevoked {
		t.Errorf("past its deadline: %v", err)
	}
}
