package sessionbench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/internal/faultconn"
	"github.com/scaleaware/scaleaware/redisclient"
	"github.com/scaleaware/scaleaware/session"
)

const (
	contentionNote = "32 requests at a time of one session, in one process with as many connections, each of which counts under a key of its own: 10,000 writes, of which none may be lost. " +
		"Beside it, in the same run, the same write by one request at a time. Over loopback two cores do the work of 32 clients, so that most of the time is waited for a processor; " +
		"with Redis 5 ms away (10 ms there and back, by a proxy) round trips are what counts."
	contenders  = 32
	writesInAll = 10_000
	farAway     = 5 * time.Millisecond
)

// contention has many requests write one session at once.
func (l *lab) contention(ctx context.Context) (rows []report.Row, err error) {
	if err := l.open(ctx); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		what  string
		delay time.Duration
	}{{"Redis over loopback", 0}, {"Redis 5 ms away", farAway}} {
		proxy, err := faultconn.New(l.server.Addrs()[0])
		if err != nil {
			return nil, err
		}
		l.closers = append(l.closers, proxy.Close)
		addr := l.server.Addrs()[0]
		if c.delay > 0 {
			addr = proxy.Addr()
			proxy.Delay(faultconn.Both, c.delay)
		}
		o := redisclient.Options(addr)
		o.PoolSize = contenders // so that none waits for a connection
		rdb := redisclient.New(o)
		l.closers = append(l.closers, rdb.Close)
		m, err := session.New(rdb, &session.Options{Insecure: true, StoreTimeout: 10 * time.Second})
		if err != nil {
			return nil, err
		}
		total := writesInAll
		if l.quick {
			total = 640
		}
		alone, _, err := writeTogether(ctx, m, 1, min(total/contenders, 200))
		if err != nil {
			return nil, err
		}
		many, lost, err := writeTogether(ctx, m, contenders, total/contenders)
		if err != nil {
			return nil, err
		}
		usual, p99 := alone[len(alone)/2], many[len(many)*99/100]
		rows = append(rows, report.Row{
			What: c.what, Goal: "0 lost; p99 ≤ 3 × one alone", Peer: "alone: p50 " + report.Since(usual),
			Ours:  fmt.Sprintf("%d of %d lost; p50 %s, p99 %s", lost, len(many), report.Since(many[len(many)/2]), report.Since(p99)),
			Ratio: fmt.Sprintf("%.2f", p99.Seconds()/usual.Seconds()),
			Met:   report.All(report.AtMost(float64(lost), 0), report.AtMost(p99.Seconds(), 3*usual.Seconds())),
		})
	}
	return rows, nil
}

// writeTogether returns how long each write took, and how many are not there.
func writeTogether(ctx context.Context, m *session.Manager, writers, each int) (took []time.Duration, lost int, err error) {
	first := &response{header: http.Header{}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
	if err != nil {
		return nil, 0, err
	}
	m.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		err = errors.Join(m.Login(r.Context(), "ada"), session.From(r.Context()).Put("begun", true))
	})).ServeHTTP(first, r)
	cookies := (&http.Response{Header: first.header}).Cookies()
	if err != nil || len(cookies) != 1 {
		return nil, 0, fmt.Errorf("%d cookies: %w", len(cookies), err)
	}
	r.AddCookie(cookies[0])
	serve := func(do func(s session.Session) error) (err error) {
		w := &response{header: http.Header{}}
		m.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { err = do(session.From(r.Context())) })).ServeHTTP(w, r)
		if w.status >= 400 {
			err = errors.Join(err, fmt.Errorf("status %d", w.status))
		}
		return err
	}
	key := func(n int) string { return fmt.Sprint("count", n) }
	var all sync.WaitGroup
	times, errs := make([][]time.Duration, writers), make([]error, writers)
	for n := range writers {
		all.Go(func() {
			for range each {
				begun := time.Now()
				if errs[n] = serve(func(s session.Session) error {
					count, _ := s.Get(key(n)).(int)
					return s.Put(key(n), count+1)
				}); errs[n] != nil {
					return
				}
				times[n] = append(times[n], time.Since(begun))
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, 0, err
	}
	err = serve(func(s session.Session) error {
		for n := range writers {
			count, _ := s.Get(key(n)).(int)
			lost += each - count
		}
		return nil
	})
	return slices.Sorted(slices.Values(slices.Concat(times...))), lost, err
}
