package cache

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
)

// lateAnswer keeps back the answer to the first GET of a key until it is let go.
type lateAnswer struct {
	redis.Hook
	key      string
	asked    atomic.Bool
	answered chan struct{}
	release  chan struct{}
}

func (l *lateAnswer) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *lateAnswer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *lateAnswer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "get" && slices.Contains(cmd.Args(), any(l.key)) && !l.asked.Swap(true) {
			close(l.answered)
			<-l.release
		}
		return err
	}
}

// Who began to read the clock before it was heard of, and ends after somebody who began later, takes nothing away.
func TestSlowReaderLeavesTheClockCurrent(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	s := newStore(t, rdb, nil)
	late := &lateAnswer{key: s.clockKey(), answered: make(chan struct{}), release: make(chan struct{})}
	rdb.AddHook(late)
	read := make(chan error, 1)
	go func() { _, err := s.readClock(ctx); read <- err }()
	<-late.answered
	running(t, s)
	close(late.release)
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if !s.clockCurrent() {
		t.Error("the clock counts as not current, so each fill asks for it")
	}
}

// A store that does not run, and so does not follow the clock, replaces what one that does has stored.
func TestIdleStoreReplacesWhatARunningOneStored(t *testing.T) {
	ctx := testContext(t)
	busy := running(t, newStore(t, client(t, one.Get(t)), nil))
	if _, err := busy.Invalidate(ctx, "nothing:*"); err != nil { // once, long ago
		t.Fatal(err)
	}
	idle := sibling(t, busy)
	l, err := Of[lead](busy, "lead").Load(ctx, "1", loads(lead{Score: 1}, at(5)))
	wantScore(t, l, err, 1)
	leads := Of[lead](idle, "lead")
	l, err = leads.Load(wrote(ctx, at(6)), "1", loads(lead{Score: 2}, at(6)))
	wantScore(t, l, err, 2)
	l, err = leads.Get(ctx, "1")
	wantScore(t, l, err, 2)
}
