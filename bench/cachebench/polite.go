package cachebench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
	"github.com/scaleaware/scaleaware/bench/internal/report"
	"github.com/scaleaware/scaleaware/cache"
)

const politeNote = "One caller reads from Redis all the time, a millisecond apart: the 99th percentile of its reads while nothing else is done, and in turns with that while ExtendTTLs goes over all entries, with a Pause of a few milliseconds between its steps. " +
	"Beside it, commands that took a master more than 5 ms, as its slow log has them."

// polite measures what extending lifetimes costs others.
func (l *lab) polite(ctx context.Context) ([]report.Row, error) {
	n, rounds := 1_000_000, 5
	if l.quick {
		n, rounds = 50_000, 3
	}
	if err := l.servers(ctx); err != nil {
		return nil, err
	}
	s, err := l.store()
	if err != nil {
		return nil, err
	}
	if _, err := warmAll(ctx, s, n, cache.WarmSet[lead]{LoadMany: many, Concurrency: 4}); err != nil {
		return nil, err
	}
	if err := l.each(ctx, func(ctx context.Context, node *redis.Client) error {
		return errors.Join(node.ConfigSet(ctx, "slowlog-log-slower-than", "5000").Err(), node.Do(ctx, "SLOWLOG", "RESET").Err())
	}); err != nil {
		return nil, err
	}
	idle, during := pairs.Result{Name: "nothing else", Allocs: -1}, pairs.Result{Name: "while it extends", Allocs: -1}
	var took time.Duration
	for round := range rounds {
		alone := l.reading(ctx)
		time.Sleep(2 * time.Second)
		idle.Rounds = append(idle.Rounds, alone())
		beside := l.reading(ctx)
		begun := time.Now()
		extended, err := s.ExtendTTLs(ctx, cache.Extension{By: time.Duration(round+1) * time.Minute, Pause: 5 * time.Millisecond})
		took = time.Since(begun)
		during.Rounds = append(during.Rounds, beside())
		if err != nil || extended.Changed < int64(n) {
			return nil, fmt.Errorf("extend: %+v: %w", extended, err)
		}
	}
	var mu sync.Mutex
	slow := 0
	if err := l.each(ctx, func(ctx context.Context, node *redis.Client) error {
		entries, err := node.Do(ctx, "SLOWLOG", "LEN").Int()
		mu.Lock()
		defer mu.Unlock()
		slow += entries
		return err
	}); err != nil {
		return nil, err
	}
	out := row(fmt.Sprintf("99th percentile of reads while %d keys are extended in %s, peer nothing else", n, report.Since(took)), "≤ 2 ×, no command over 5 ms", during, idle, 2, report.AtMost(float64(slow), 0))
	out.Ours += ", slow commands: " + strconv.Itoa(slow)
	return []report.Row{out}, nil
}

func (l *lab) each(ctx context.Context, do func(context.Context, *redis.Client) error) error {
	c, ok := l.rdb.(*redis.ClusterClient)
	if !ok {
		return fmt.Errorf("the client is a %T", l.rdb)
	}
	return c.ForEachMaster(ctx, do)
}

// reading reads until it is told to return the 99th percentile in ns.
func (l *lab) reading(ctx context.Context) (p99 func() float64) {
	ctx, stop := context.WithCancel(ctx)
	result := make(chan float64)
	go func() {
		var took []time.Duration
		for i := 0; ctx.Err() == nil; i++ {
			begun := time.Now()
			_ = l.rdb.Get(context.WithoutCancel(ctx), "reading:"+strconv.Itoa(i%1000)).Err() // nothing is there
			took = append(took, time.Since(begun))
			time.Sleep(time.Millisecond)
		}
		slices.Sort(took)
		result <- float64(took[len(took)*99/100])
	}()
	return func() float64 { stop(); return <-result }
}
