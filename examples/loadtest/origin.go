package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// item is what the test of the cache caches.
type item struct {
	Key     string
	Version int
	Filler  [200]byte
}

// origin is what the cache protects: it counts how often it is asked.
type origin struct {
	loads atomic.Int64
	pause atomic.Int64

	mu       sync.Mutex
	versions map[string]int
}

func newOrigin(keys int) *origin { return &origin{versions: make(map[string]int, keys)} }

func (o *origin) load(ctx context.Context, key string) (item, error) {
	o.loads.Add(1)
	it := item{Key: key, Version: o.version(key)}
	if pause := time.Duration(o.pause.Load()); pause > 0 {
		select {
		case <-ctx.Done():
			return it, ctx.Err()
		case <-time.After(pause): // the slow query that a stampede would multiply
		}
	}
	return it, nil
}

func (o *origin) slow(d time.Duration) { o.pause.Store(int64(d)) }

func (o *origin) version(key string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.versions[key]
}

func (o *origin) change(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.versions[key]++
}
