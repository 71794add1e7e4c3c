package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// held is a hook that lets nothing through to the servers until it is opened, and notes what came.
type held struct {
	open    chan struct{}
	entered chan int // how many commands came at once
}

func newHeld() *held { return &held{open: make(chan struct{}), entered: make(chan int, 1000)} }

func (h *held) wait(ctx context.Context, n int) error {
	h.entered <- n
	select {
	case <-h.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *held) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *held) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := h.wait(ctx, 1); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (h *held) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := h.wait(ctx, len(cmds)); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		return next(ctx, cmds)
	}
}

// crowd makes n callers get "{one}0" and so on, all of one slot, and waits until each is in a lane.
func crowd(t *testing.T, ctx context.Context, v *View[lead], n int, done func(i int, l lead, err error)) (wait func()) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			l, err := v.Get(ctx, fmt.Sprintf("{one}%d", i))
			done(i, l, err)
		})
	}
	return wg.Wait
}

// waiting counts who waits in a lane of the store.
func waiting(s *Store) (n int) {
	count := func(l *lane) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, b := range append(slices.Clone(l.full), l.forming) {
			if b != nil {
				n += b.waiting
			}
		}
	}
	everyLane(s, count)
	return n
}

func everyLane(s *Store, visit func(*lane)) {
	visit(&s.lanes.single)
	if lanes := s.lanes.byAddr.Load(); lanes != nil {
		for _, l := range *lanes {
			visit(l)
		}
	}
	s.coverage.mu.Lock()
	defer s.coverage.mu.Unlock()
	for _, g := range s.coverage.byAddr {
		visit(&g.lane)
	}
}

func flying(s *Store) (n int) {
	count := func(l *lane) {
		l.mu.Lock()
		defer l.mu.Unlock()
		n += l.flying
	}
	everyLane(s, count)
	return n
}

// What comes while calls are under way goes together, each with its own answer.
func TestCallsAtOnceShareAPipeline(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, func(o *Options) { o.RedisTimeout = 30 * time.Second })
		leads := Of[lead](s, "lead")
		const n = 40
		for i := range n - 1 {
			if err := leads.Set(ctx, fmt.Sprintf("{one}%d", i), lead{Score: int64(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := rdb.Del(ctx, leads.prefix+"{one}3").Err(); err != nil {
			t.Fatal(err)
		}
		if err := rdb.LPush(ctx, leads.prefix+"{one}3", "of another type").Err(); err != nil {
			t.Fatal(err)
		}
		h := newHeld()
		rdb.AddHook(h)
		wait := crowd(t, ctx, leads, n, func(i int, l lead, err error) {
			switch {
			case i == 3 || i == n-1:
				if !errors.Is(err, ErrMiss) {
					t.Errorf("%d: %v", i, err)
				}
			case err != nil || l.Score != int64(i):
				t.Errorf("%d: %+v, %v", i, l, err)
			}
		})
		eventually(t, "all but two wait", func() bool { return waiting(s) == n-laneWidth })
		close(h.open)
		wait()
		close(h.entered)
		var sizes []int
		for size := range h.entered {
			sizes = append(sizes, size)
		}
		if most := slices.Max(sizes); most != n-laneWidth { // beside those that set connections up
			t.Errorf("calls of %v commands, want one of %d", sizes, n-laneWidth)
		}
		if flying(s) != 0 || waiting(s) != 0 {
			t.Errorf("%d under way, %d wait", flying(s), waiting(s))
		}
	})
}

// Those who wait for others' calls leave when their own context ends, and the rest goes on; the turn is not lost with them.
func TestWaitersLeaveWithTheirContext(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	s := newStore(t, rdb, func(o *Options) { o.RedisTimeout = 30 * time.Second })
	leads := Of[lead](s, "lead")
	for i := range 20 {
		if err := leads.Set(ctx, fmt.Sprintf("{one}%d", i), lead{Score: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	h := newHeld()
	rdb.AddHook(h)
	wait := crowd(t, ctx, leads, laneWidth, func(i int, l lead, err error) { wantScore(t, l, err, int64(i)) })
	eventually(t, "the lane is full", func() bool { return len(h.entered) == laneWidth })
	short, cancel := context.WithCancel(ctx)
	left := crowd(t, short, leads, 20, func(i int, _ lead, err error) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%d: %v", i, err)
		}
	})
	eventually(t, "they wait", func() bool { return waiting(s) == 20 })
	cancel()
	left() // the calls before them are still held
	close(h.open)
	wait()
	if flying(s) != 0 || waiting(s) != 0 {
		t.Errorf("%d under way, %d wait", flying(s), waiting(s))
	}
}

// Nor do they wait for longer than RedisTimeout, whatever the calls before them do.
func TestWaitersLeaveAfterRedisTimeout(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	s := newStore(t, rdb, func(o *Options) { o.RedisTimeout = 300 * time.Millisecond })
	leads := Of[lead](s, "lead")
	l := s.lane(ctx, leads.prefix+"{one}0")
	for range laneWidth {
		l.join(nil)
	}
	crowd(t, ctx, leads, 20, func(i int, _ lead, err error) {
		if !errors.Is(err, ErrMiss) || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
			t.Errorf("%d: %v", i, err)
		}
	})()
	if flying(s) != laneWidth || waiting(s) != 0 {
		t.Errorf("%d under way, %d wait", flying(s), waiting(s))
	}
	l.next()
	l.next()
	if flying(s) != 0 {
		t.Errorf("%d under way", flying(s))
	}
}

// Who sends for others and runs out of time costs them nothing but that.
func TestSendersEndIsNotTheOthers(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	s := newStore(t, rdb, func(o *Options) { o.RedisTimeout = 30 * time.Second })
	key := func(i int) string { return fmt.Sprintf("%slead:%d", s.opts.Prefix, i) }
	for i := range 3 {
		if err := rdb.Set(ctx, key(i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	l := s.lane(ctx, key(0))
	for range laneWidth {
		l.join(nil)
	}
	short, cancel := context.WithCancel(ctx)
	get := redis.NewStringCmd(ctx, "get", key(1))
	b, first, _ := l.join(redis.NewStringCmd(ctx, "get", key(0)))
	_, second, _ := l.join(get)
	l.next()
	<-b.turn
	cancel()
	l.send(short, time.Now().Add(time.Minute), rdb, b)
	if !first.lost || !second.lost {
		t.Errorf("lost: %v, %v", first.lost, second.lost)
	}
	l.next()
	if raw, err := s.get(ctx, key(2)); err != nil || string(raw) != "2" || flying(s) != 0 {
		t.Errorf("%q, %v, %d under way", raw, err, flying(s))
	}
}

// A turn that comes to a batch whose last caller goes is passed on.
func TestTurnIsPassedOn(t *testing.T) {
	var l lane
	for range laneWidth {
		l.join(nil)
	}
	b, mine, _ := l.join(redis.NewStringCmd(t.Context(), "get", "x"))
	l.next() // the turn is the batch's
	if l.flying != laneWidth || len(b.turn) != 1 {
		t.Fatalf("%d under way, %d turns", l.flying, len(b.turn))
	}
	l.leave(b, mine)
	if l.flying != laneWidth-1 || len(b.turn) != 0 {
		t.Errorf("%d under way, %d turns", l.flying, len(b.turn))
	}
}
