package cache

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

var errHistoryOrigin = errors.New("the origin fails now and then")

// origin reads a register, and is slow after that: what it returns may be old by then.
func (w *worker) origin(ctx context.Context, id string) (int64, error) {
	w.counts().loads.Add(1)
	key, err := strconv.Atoi(id)
	if err != nil {
		return 0, err
	}
	v := w.version(ctx, key)
	scaleaware.WatermarkFrom(ctx).Saw(scaleaware.Token{System: historySystem(key), Timeline: 1, LSN: scaleaware.LSN(v)})
	switch n := rand.IntN(1000); {
	case n < 3:
		_ = sleep(ctx, 300*time.Millisecond)
	case n < 10:
		return 0, errHistoryOrigin
	case n < 500:
		_ = sleep(ctx, time.Duration(rand.IntN(3000))*time.Microsecond)
	}
	return v, nil
}

// originOfMany is origin for a batch, which fails as one.
func (w *worker) originOfMany(ctx context.Context, ids []string) (map[string]int64, error) {
	found := make(map[string]int64, len(ids))
	for _, id := range ids {
		v, err := w.origin(ctx, id)
		if err != nil {
			return nil, err
		}
		found[id] = v
	}
	return found, nil
}

// version is what the origin has, or, now and then, what a standby has that lags; it is not asked for more than it has.
func (w *worker) version(ctx context.Context, key int) int64 {
	r := &w.board.keys[key]
	v := r.version.Load()
	if w.Lag == 0 || setClass(key) || rand.IntN(2) == 0 {
		return v
	}
	written, err := scaleaware.WatermarkFrom(ctx).Written(ctx)
	if err != nil {
		return v
	}
	need, begins := int64(written.For(historySystem(key)).LSN), w.clock.now()-int64(w.Lag)
	for v > need && r.raised[v%boardRing].Load() > begins {
		v--
	}
	return v
}

// beat says that the process and the servers have their turn.
func (w *worker) beat(ctx context.Context, rdb redis.UniversalClient) {
	p := &w.board.pulses[w.Number]
	p.since.Store(math.MaxInt64)
	for w.board.stop.Load() == 0 {
		began := w.clock.now()
		if sleep(ctx, 5*time.Millisecond) != nil {
			return
		}
		err := rdb.(*redis.ClusterClient).ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return node.Ping(ctx).Err() })
		now := w.clock.now()
		if late := now-began > int64(lateBeat) || err != nil; late || p.since.Load() == math.MaxInt64 {
			p.since.Store(now)
		}
		p.last.Store(now)
	}
}
