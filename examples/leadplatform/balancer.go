package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Balancer spreads requests over the API instances by fewest open connections, as nginx's least_conn does. An
// instance that refuses connections is left out for a moment. Only a request that no instance can have seen is given
// to another: one whose connection was refused.
type Balancer struct {
	mu        sync.Mutex
	upstreams []*upstream
	transport *http.Transport
}

type upstream struct {
	addr     string
	open     atomic.Int64
	outUntil atomic.Int64 // unix nanoseconds
}

// failTimeout is how long a refusing instance is left out.
const failTimeout = time.Second

// NewBalancer returns a Balancer without instances.
func NewBalancer() *Balancer {
	return &Balancer{transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second}}
}

// Set replaces the instances.
func (b *Balancer) Set(addrs []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var next []*upstream
	for _, addr := range addrs {
		kept := &upstream{addr: addr}
		for _, u := range b.upstreams {
			if u.addr == addr {
				kept = u
			}
		}
		next = append(next, kept)
	}
	b.upstreams = next
}

// Close closes idle connections.
func (b *Balancer) Close() { b.transport.CloseIdleConnections() }

func (b *Balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	proxy := &httputil.ReverseProxy{
		Transport: b,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetXForwarded()
			p.Out.Host = p.In.Host
			p.Out.URL = &url.URL{Scheme: "http", Host: "upstream", Path: p.In.URL.Path, RawPath: p.In.URL.RawPath, RawQuery: p.In.URL.RawQuery}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
				return // the client left
			}
			http.Error(w, "no API instance answered", http.StatusBadGateway)
		},
	}
	proxy.ServeHTTP(w, r)
}

// RoundTrip implements http.RoundTripper over the instances.
func (b *Balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	var lastErr error
	for range 3 {
		u := b.pick()
		if u == nil {
			break
		}
		resp, err := b.send(u, r)
		if err == nil {
			return resp, nil
		}
		lastErr = err
		if !refused(err) {
			break
		}
		u.outUntil.Store(time.Now().Add(failTimeout).UnixNano())
	}
	if lastErr == nil {
		lastErr = errors.New("no API instance is up")
	}
	return nil, lastErr
}

func (b *Balancer) send(u *upstream, r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Host = u.addr
	if r.Body != nil {
		// The transport closes the body even when it could not connect; the next instance still needs it.
		out.Body = io.NopCloser(r.Body)
	}
	u.open.Add(1)
	resp, err := b.transport.RoundTrip(out)
	if err != nil {
		u.open.Add(-1)
		return nil, err
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, done: func() { u.open.Add(-1) }}
	return resp, nil
}

// pick prefers the instance with the fewest open requests among those in rotation; of all, when none is.
func (b *Balancer) pick() *upstream {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now().UnixNano()
	var best *upstream
	for _, i := range rand.Perm(len(b.upstreams)) {
		u := b.upstreams[i]
		switch {
		case best == nil,
			u.outUntil.Load() <= now && best.outUntil.Load() > now,
			u.outUntil.Load() <= now && u.open.Load() < best.open.Load():
			best = u
		}
	}
	return best
}
