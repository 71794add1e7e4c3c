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
func before(t testing.TB, store scs.Store) *app {
	t.Helper()
	sm := scs.New()
	sm.Store = store
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
	const prefix = "scs:session:" // the default of both
	rdb := client(t, single)
	plainSCS := before(t, redisstore.New(pool(t)))
	onRedisstore := serve(t, withStore(t, redisstore.New(pool(t)), Options{}))
	onOurs := serve(t, manager(t, rdb, Options{Prefix: prefix}))
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
