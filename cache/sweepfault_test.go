package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// midway calls a function once, before the first commands of a kind are sent in a pipeline.
type midway struct {
	redis.Hook
	name string
	do   func()
}

func (m midway) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (m midway) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (m midway) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == m.name {
			m.do()
		}
		return next(ctx, cmds)
	}
}

// A replica takes over while a sweep is under way. What the sweep did not come by is not served by those who run, the report
// says whether anything is left, and nothing is when it says so.
func TestInvalidateAcrossAFailover(t *testing.T) {
	for name, overthrow := range map[string]func(ctx context.Context, master, replica *rediscluster.Node) error{
		"planned": func(ctx context.Context, _, replica *rediscluster.Node) error { return replica.Failover(ctx) },
		"forced":  func(ctx context.Context, _, replica *rediscluster.Node) error { return replica.ForceFailover(ctx) },
		"killed":  func(_ context.Context, master, _ *rediscluster.Node) error { master.Kill(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			cluster, leads, master := breakable(t, ctx, nil)
			replica, err := cluster.ReplicaOf(ctx, master)
			if err != nil {
				t.Fatal(err)
			}
			there := running(t, newStore(t, client(t, cluster), func(o *Options) { o.Prefix = leads.store.opts.Prefix }))
			near := Of[lead](there, "lead", InProcess(Local{}))
			ids := fillStore(t, ctx, leads, 600)
			for _, id := range ids[:20] {
				settled(t, ctx, near, id, loads(lead{}))
			}
			leads.store.rdb.AddHook(midway{name: "unlink", do: sync.OnceFunc(func() {
				if err := overthrow(ctx, master, replica); err != nil {
					t.Error(err)
				}
			})})
			report, err := leads.store.Invalidate(ctx, "lead:*")
			if (err == nil) != report.Complete || err != nil && !errors.Is(err, ErrIncomplete) {
				t.Errorf("%+v, %v", report, err)
			}
			t.Logf("removed %d, %v", report.Changed, err)
			if err := cluster.WaitHealthy(ctx); err != nil {
				t.Fatal(err)
			}
			covered(t, there)
			check := func(v *View[lead]) {
				t.Helper()
				found, err := v.GetMany(ctx, ids)
				for id := range found {
					t.Errorf("%d are left, such as %s", len(found), id)
					break
				}
				if err != nil {
					t.Error(err)
				}
			}
			if err != nil {
				check(near) // the rule stands
			} else if name == "planned" { // else what the old master has removed last may be lost
				check(leads)
				check(near)
			}
			eventually(t, "the rest is swept", func() bool { r, err := leads.store.Invalidate(ctx, "lead:*"); return err == nil && r.Complete })
			check(leads)
		})
	}
}

// A server that has forgotten the scripts is told the one that a sweep needs once for many keys.
func TestSweepTellsAScriptForManyKeys(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	v := Of[lead](s, "lead")
	fillStore(t, ctx, v, 2000)
	if err := v.Delete(wrote(ctx, at(10)), "1"); err != nil {
		t.Fatal(err)
	}
	told := func() (n int) {
		stats, err := s.rdb.Info(ctx, "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		if _, calls, found := strings.Cut(stats, "cmdstat_eval:calls="); found {
			_, err = fmt.Sscan(calls[:strings.IndexByte(calls, ',')], &n)
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := s.rdb.ScriptFlush(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	before := told()
	if report, err := s.Invalidate(ctx, "*"); err != nil || report.Changed != 1999 {
		t.Errorf("%+v, %v", report, err)
	}
	if n := told() - before; n > 10 {
		t.Errorf("scripts were told %d times", n)
	}
}

// longest is how many commands went in one pipeline at most.
type longest struct {
	redis.Hook
	n int
}

func (l *longest) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (l *longest) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (l *longest) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		l.n = max(l.n, len(cmds))
		return next(ctx, cmds)
	}
}

// What a server refuses of many keys is sent key by key, some hundred at a time; what it does not answer is not.
func TestSweepSplitsWhatIsRefused(t *testing.T) {
	for name, silent := range map[string]bool{"refused": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			rdb, h := hindered(t, client(t, one.Get(t)))
			var l longest
			rdb.AddHook(&l)
			s := newStore(t, rdb, nil)
			v := Of[lead](s, "lead")
			keys := v.keysOf(fillStore(t, ctx, v, 4*unlinkCommands))
			s.markLeases(ctx)
			h.set(func(ctx context.Context, name string) error {
				switch {
				case name != "evalsha":
					return nil
				case silent:
					return errors.New("the connection was lost")
				default:
					return refusing(name)(ctx, name)
				}
			})
			h.asked["eval"], l.n = 0, 0
			removed, _, err := s.unlinking().do(ctx, nil, keys)
			if silent {
				if n := h.asked["eval"]; n > 0 || err == nil || removed != 0 {
					t.Errorf("%d were removed, %v, and %d commands sent again", removed, err, n)
				}
				return
			}
			if err != nil || int(removed) != len(keys) {
				t.Errorf("%d were removed, %v", removed, err)
			}
			if l.n == 0 || l.n > unlinkCommands {
				t.Errorf("%d commands went in one pipeline", l.n)
			}
		})
	}
}
