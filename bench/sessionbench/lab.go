package sessionbench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/gomodule/redigo/redis"
	goredis "github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
	"github.com/scaleaware/scaleaware/session"
)

// lab has one Redis for all measurements.
type lab struct {
	quick   bool
	server  *rediscluster.Cluster
	closers []func() error // the last one first
}

func (l *lab) open(ctx context.Context) error {
	if l.server != nil {
		return nil
	}
	c, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
	if err != nil {
		return err
	}
	l.server = c
	l.closers = append(l.closers, c.Close)
	return nil
}

func (l *lab) close() error {
	var errs []error
	for i := len(l.closers) - 1; i >= 0; i-- {
		errs = append(errs, l.closers[i]())
	}
	return errors.Join(errs...)
}

// What a request may do with its session.
const (
	untouched = "untouched"
	readOne   = "read one value of 11"
	writeOne  = "write one value of 11"
	// readByHandle is readOne by session.From, which decodes no other value.
	readByHandle = "read one value of 11 by session.From"
)

var actions = []string{untouched, readOne, writeOne}

// implementation is one way to have sessions.
type implementation struct {
	name string
	sm   *scs.SessionManager
	wrap func(http.Handler) http.Handler
	rdb  goredis.UniversalClient // of ours
}

// implementations have the same idle timeout, or none, and Redis at addr.
func (l *lab) implementations(addr string, idle time.Duration) ([]implementation, error) {
	rdb := redisclient.New(redisclient.Options(addr))
	l.closers = append(l.closers, rdb.Close)
	ours, err := session.New(rdb, &session.Options{Insecure: true, IdleTimeout: idle})
	if err != nil {
		return nil, err
	}
	alone := func(store scs.Store) *scs.SessionManager {
		sm := scs.New()
		sm.Store, sm.IdleTimeout = store, idle
		return sm
	}
	client := goredis.NewClient(&goredis.Options{Addr: addr})
	pool := &redis.Pool{MaxIdle: 4, Dial: func() (redis.Conn, error) { return redis.Dial("tcp", addr) }}
	l.closers = append(l.closers, client.Close, pool.Close)
	first, second := alone(goredisstore.NewWithPrefix(client, "goredis:")), alone(redisstore.NewWithPrefix(pool, "redigo:"))
	return []implementation{
		{"session", ours.SCS(), ours.Middleware, rdb},
		{"scs + goredisstore", first, first.LoadAndSave, nil},
		{"scs + redisstore", second, second.LoadAndSave, nil},
	}, nil
}

// visitor has a session with 11 values, and does one thing with it in each request.
func (i implementation) visitor(action string) (func(context.Context) error, error) {
	fail := error(nil)
	serve := func(h http.HandlerFunc) http.Handler { return i.wrap(h) }
	filled := &response{header: http.Header{}}
	r, err := http.NewRequest(http.MethodGet, "/", nil)
	if err != nil {
		return nil, err
	}
	serve(func(_ http.ResponseWriter, r *http.Request) {
		for n := range 10 {
			i.sm.Put(r.Context(), fmt.Sprintf("key-%d", n), "a value as long as many are")
		}
		i.sm.Put(r.Context(), "user", "ada")
	}).ServeHTTP(filled, r)
	cookies := (&http.Response{Header: filled.header}).Cookies()
	if len(cookies) != 1 {
		return nil, fmt.Errorf("%s: %d cookies, status %d", i.name, len(cookies), filled.status)
	}
	r.AddCookie(cookies[0])
	n := 0
	handler := serve(func(_ http.ResponseWriter, r *http.Request) {
		switch action {
		case readOne:
			if got := i.sm.GetString(r.Context(), "user"); got != "ada" {
				fail = fmt.Errorf("%s: user is %q", i.name, got)
			}
		case readByHandle:
			if got := session.From(r.Context()).String("user"); got != "ada" {
				fail = fmt.Errorf("%s: user is %q", i.name, got)
			}
		case writeOne:
			n++
			i.sm.Put(r.Context(), "seen", n)
		}
	})
	w := &response{header: http.Header{}}
	return func(context.Context) error {
		clear(w.header)
		w.status = 0
		handler.ServeHTTP(w, r)
		if w.status >= 400 {
			return fmt.Errorf("%s: status %d", i.name, w.status)
		}
		return fail
	}, nil
}

// command is what a read asks Redis, without a session around it: no read can take less.
func (i implementation) command(idle time.Duration) func(context.Context) error {
	const key = "floor"
	args := []any{"getex", key}
	if idle > 0 {
		args = append(args, "px", idle.Milliseconds())
	}
	set := i.rdb.Set(context.Background(), key, strings.Repeat("x", 460), 0).Err()
	return func(ctx context.Context) error {
		_, err := i.rdb.Do(ctx, args...).Text()
		return errors.Join(set, err)
	}
}

// response keeps no body.
type response struct {
	header http.Header
	status int
}

func (w *response) Header() http.Header         { return w.header }
func (w *response) Write(b []byte) (int, error) { return len(b), nil }
func (w *response) WriteHeader(status int)      { w.status = status }
