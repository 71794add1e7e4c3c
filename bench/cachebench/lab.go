package cachebench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"golang.org/x/sync/errgroup"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// patience bounds what should take milliseconds.
const patience = 30 * time.Second

// lead is the value of all measurements: about a hundred bytes as JSON.
type lead struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Source string `json:"source"`
	Score  int64  `json:"score"`
	Owner  int64  `json:"owner"`
}

func leadOf(id string) lead {
	return lead{ID: id, Name: "Ada Lovelace of London", Source: "newsletter-2026-11", Score: 4711, Owner: 42}
}

// lab has one cluster for all measurements.
type lab struct {
	quick   bool
	cluster *rediscluster.Cluster
	rdb     redis.UniversalClient
	stores  int
}

func (l *lab) servers(ctx context.Context) error {
	if l.cluster != nil {
		return l.cluster.Flush(ctx)
	}
	logging.Disable() // servers that start refuse connections
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := rediscluster.Start(ctx, nil)
	if err != nil {
		return err
	}
	l.cluster, l.rdb = c, redisclient.New(redisclient.Options(c.Addrs()...))
	return nil
}

func (l *lab) close() error {
	if l.cluster == nil {
		return nil
	}
	return errors.Join(l.rdb.Close(), l.cluster.Close())
}

func (l *lab) facts() []string {
	if l.cluster == nil {
		return nil
	}
	return []string{
		"Redis: three masters with one replica each, over loopback, nothing written to disk.",
		"Not compared: eko/gocache, which was to be a peer, too. The module proxy that these programs were built with does not give it out.",
	}
}

// store returns a store with a prefix of its own, patient with servers that share the machine.
func (l *lab) store() (*cache.Store, error) {
	l.stores++
	return l.storeAt(fmt.Sprintf("bench%d:", l.stores))
}

func (l *lab) storeAt(prefix string) (*cache.Store, error) {
	return cache.New(l.rdb, &cache.Options{Prefix: prefix, RedisTimeout: 5 * time.Second})
}

// running runs a store until stop.
func running(ctx context.Context, s *cache.Store) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

func ids(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%07d", i)
	}
	return all
}

// zipf draws n of the ids, the first ones most often.
func zipf(ids []string, n int) []string {
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.01, 10, uint64(len(ids)-1))
	drawn := make([]string, n)
	for i := range drawn {
		drawn[i] = ids[z.Uint64()]
	}
	return drawn
}

// fill stores all ids in Redis.
func fill(ctx context.Context, v *cache.View[lead], ids []string) error {
	group, ctx := errgroup.WithContext(ctx)
	const share = 16
	for n := range share {
		group.Go(func() error {
			for i := n; i < len(ids); i += share {
				if err := v.Set(ctx, ids[i], leadOf(ids[i])); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// decode is what peers do with the bytes that a view stored: the header has its own length at 6.
func decode(raw []byte) (l lead, err error) {
	if len(raw) < 8 {
		return l, errors.New("no entry")
	}
	return l, json.Unmarshal(raw[int(raw[6])<<8|int(raw[7]):], &l)
}

// eventually waits until ok.
func eventually(what string, ok func() bool) error {
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not in time: %s", what)
		}
	}
	return nil
}
