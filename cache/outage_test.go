package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// oneOfMine is a store that runs on a server of its own, which is frozen with it.
func oneOfMine(t *testing.T, ctx context.Context, set func(*Options)) (*Store, *rediscluster.Node) {
	t.Helper()
	cluster, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cluster.Close() })
	node := cluster.Nodes()[0]
	t.Cleanup(func() { node.Thaw() })
	s := newStore(t, client(t, cluster), func(o *Options) {
		o.RedisTimeout = 100 * time.Millisecond
		if set != nil {
			set(o)
		}
	})
	eventually(t, "the server answers in time", func() bool { return s.Ready(ctx) == nil })
	return running(t, s), node
}

func uncovered(t *testing.T, s *Store) {
	t.Helper()
	eventually(t, "the process knows that it is cut off", func() bool { return s.coverage.covered(s.now()) == 0 })
}

// When neither Redis nor the origin answers, the value that the process keeps is served where the view allows it, to whom
// it is new enough, unless the process itself has invalidated it.
func TestStaleWhileRedisIsAway(t *testing.T) {
	away := errors.New("away")
	fails := func(context.Context, string) (lead, error) { return lead{}, away }
	for _, many := range []bool{false, true} {
		t.Run(fmt.Sprint("many ", many), func(t *testing.T) {
			ctx := testContext(t)
			s, node := oneOfMine(t, ctx, nil)
			leads := Of[lead](s, "lead", InProcess(Local{}), TTL(time.Hour), StaleIfError(time.Hour), Tags(byCustomer))
			strict := Of[lead](s, "strict", InProcess(Local{}), TTL(time.Hour), StaleWhileRevalidate(time.Hour))
			load := func(ctx context.Context, v *View[lead], id string, load Loader[lead]) (lead, error) {
				if !many {
					return v.Load(ctx, id, load)
				}
				found, err := v.LoadMany(ctx, []string{id}, ofEach(load))
				var failed KeyErrors
				if errors.As(err, &failed) {
					err = failed[id]
				}
				return found[id], err
			}
			for _, id := range []string{"1", "deleted", "set", "swept", "moved"} {
				settled(t, ctx, leads, id, loads(lead{Score: 1}, at(5)))
			}
			settled(t, ctx, strict, "1", loads(lead{Score: 1}))
			leads.near.suspectOf("moved")
			node.Freeze()
			uncovered(t, s)

			if l, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("Get: %+v, %v", l, err)
			}
			if found, err := leads.GetMany(ctx, []string{"1"}); err == nil || len(found) > 0 {
				t.Errorf("GetMany: %+v, %v", found, err)
			}
			stale := func() float64 { return testutil.ToFloat64(leads.looked[resultStale]) }
			misses := func() float64 { return testutil.ToFloat64(leads.looked[resultMiss]) }
			was, wasMisses := stale(), misses()
			l, err := load(ctx, leads, "1", fails)
			wantScore(t, l, err, 1)
			l, err = load(wrote(ctx, at(5)), leads, "1", fails)
			wantScore(t, l, err, 1)
			if n := testutil.ToFloat64(s.in.fallbacks.WithLabelValues("lead")); n != 2 || stale()-was != 2 || misses() != wasMisses {
				t.Errorf("counted: %v fallbacks, %v stale, %v misses", n, stale()-was, misses()-wasMisses)
			}
			l, err = load(ctx, leads, "1", loads(lead{Score: 2}))
			wantScore(t, l, err, 2)
			refused := func(what string, ctx context.Context, v *View[lead], id string) {
				t.Helper()
				if l, err := load(ctx, v, id, fails); !errors.Is(err, away) {
					t.Errorf("%s, and got %+v, %v", what, l, err)
				}
			}
			refused("the caller wrote more", wrote(ctx, at(6)), leads, "1")
			refused("the view does not allow it", ctx, strict, "1")
			refused("it may be another value by now", ctx, leads, "moved")
			if err := leads.Delete(ctx, "deleted"); err == nil {
				t.Error("deleted from a frozen server")
			}
			refused("deleted here", ctx, leads, "deleted")
			if err := leads.Set(ctx, "set", lead{Score: 3, ID: "set"}); err == nil {
				t.Error("set in a frozen server")
			}
			if _, err := s.Invalidate(ctx, "lead:swept"); err == nil {
				t.Error("swept a frozen server")
			}
			refused("invalidated here", ctx, leads, "swept")
			l, err = load(ctx, leads, "1", fails)
			wantScore(t, l, err, 1)
			if err := s.InvalidateTags(ctx, "all"); err == nil {
				t.Error("invalidated tags of a frozen server")
			}
			refused("its tag was invalidated here", ctx, leads, "1")
		})
	}
}

// Who is refused for want of room gets the value too, and a server that answers again says what became of it.
func TestStaleUntilRedisAnswers(t *testing.T) {
	ctx := testContext(t)
	s, node := oneOfMine(t, ctx, func(o *Options) { o.MaxLoads, o.LoadWait = 1, -1 })
	leads := Of[lead](s, "lead", InProcess(Local{}), TTL(time.Hour), StaleIfError(time.Hour))
	settled(t, ctx, leads, "1", loads(lead{Score: 1}))
	node.Freeze()
	uncovered(t, s)
	g := newGate()
	other := background(ctx, leads, "2", g.load)
	<-g.entered
	l, err := leads.Load(ctx, "1", loads(lead{Score: 2}))
	wantScore(t, l, err, 1)
	g.release <- lead{}
	<-other
	// Another process invalidates it while this one does not listen.
	node.Thaw()
	eventually(t, "it is deleted elsewhere", func() bool { return s.rdb.Del(ctx, leads.prefix+"1").Err() == nil })
	eventually(t, "Redis answers", func() bool { _, err := leads.Get(ctx, "1"); return err == ErrMiss })
	away := errors.New("away")
	if l, err := leads.Load(ctx, "1", func(context.Context, string) (lead, error) { return lead{}, away }); !errors.Is(err, away) {
		t.Errorf("Redis answers that it is gone, and got %+v, %v", l, err)
	}
}
