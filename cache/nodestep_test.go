package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// wantTTLs checks that all entries end in so much time, but for what the test has taken.
func wantTTLs(t *testing.T, ctx context.Context, v *View[lead], ids []string, want time.Duration) {
	t.Helper()
	wrong := 0
	for _, id := range ids {
		if got := v.store.rdb.PTTL(ctx, v.prefix+id).Val(); got > want+time.Second || got < want-time.Minute {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d do not end in %v", wrong, len(ids), want)
	}
}

// A slot moves while a node names its keys and changes them: those that have come before the slot is the node's are refused
// by it, and changed all the same, each once.
func TestExtendWhileASlotMoves(t *testing.T) {
	cluster := six.Get(t)
	ctx := testContext(t)
	s := newStore(t, client(t, cluster), nil)
	leads := Of[lead](s, "lead", TTL(time.Hour), Jitter(0))
	var ids []string
	for i := range 400 { // in one slot
		ids = append(ids, fmt.Sprintf("{extended}%d", i))
		if err := leads.Set(ctx, ids[i], lead{}); err != nil {
			t.Fatal(err)
		}
	}
	slot, from, to := route(t, ctx, cluster, leads.prefix+ids[0])
	m, err := cluster.BeginMigration(ctx, slot, to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for moved := 1; moved > 0 && err == nil; {
			moved, err = m.Move(ctx, 100)
		}
		if err := errors.Join(err, m.Finish(ctx), cluster.MigrateSlot(ctx, slot, from)); err != nil {
			t.Error(err)
		}
	}()
	if _, err := m.Move(ctx, 100); err != nil {
		t.Fatal(err)
	}
	extending := s.scripted(ctx, extendScript, 1, 0, 0)
	var refused atomic.Int64
	var once sync.Once
	step := extending.step
	extending.step = func(ctx context.Context, node *redis.Client, cursor uint64, match string, count int64) (nodeStep, error) {
		got, err := step(ctx, node, cursor, match, count)
		if node.Options().Addr == from.Addr() && got.named > 0 {
			once.Do(func() {
				if _, err := m.Move(ctx, 100); err != nil {
					t.Error(err)
				}
			})
		}
		refused.Add(int64(len(got.refused)))
		return got, err
	}
	report := Report{Pattern: "*"}
	if err := s.sweep(ctx, &report, time.Nanosecond, extending); err != nil || report.Changed != 400 || report.Scanned < 400 {
		t.Errorf("%+v, %v", report, err)
	}
	if refused.Load() == 0 {
		t.Error("no node refused a key: the test does not show what it should")
	}
	wantTTLs(t, ctx, leads, ids, 2*time.Hour)
	if report, err := s.RestoreTTLs(ctx); err != nil || report.Changed != 400 {
		t.Errorf("restore: %+v, %v", report, err)
	}
	wantTTLs(t, ctx, leads, ids, time.Hour)
}

// The store's own keys are no entries, whatever stands there.
func TestExtendLeavesTheStoresOwnKeysAlone(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead", TTL(time.Hour), Jitter(0))
		ids := fillStore(t, ctx, leads, 30)
		own := s.opts.Prefix + metaMark + "lead:0"
		if err := rdb.Set(ctx, own, rdb.Get(ctx, leads.prefix+"0").Val(), 90*time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		for name, move := range map[string]func(dryRun bool) (Report, error){
			"extend":  func(dry bool) (Report, error) { return s.ExtendTTLs(ctx, Extension{DryRun: dry}) },
			"restore": func(dry bool) (Report, error) { return s.RestoreTTLsWith(ctx, Restoration{DryRun: dry}) },
		} {
			for _, dry := range []bool{true, false} {
				if report, err := move(dry); err != nil || report.Scanned != int64(len(ids)) {
					t.Errorf("%s, dry run %v: %+v, %v", name, dry, report, err)
				}
			}
		}
		if got := rdb.PTTL(ctx, own).Val(); got > 90*time.Minute || got < 89*time.Minute {
			t.Errorf("TTL %v", got)
		}
	})
}

// What ends before its own end, because somebody said so, is not lengthened by the undo, and what has no end gets none.
func TestRestoreLengthensNothing(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead", TTL(time.Hour), Jitter(0))
		ids := fillStore(t, ctx, leads, 2)
		past := appendHeader(nil, header{kind: kindValue, hard: time.Now().Add(-time.Hour).UnixMilli()})
		for _, err := range []error{
			rdb.PExpire(ctx, leads.prefix+ids[0], time.Minute).Err(),
			rdb.Persist(ctx, leads.prefix+ids[1]).Err(),
			rdb.Set(ctx, leads.prefix+"past", past, 0).Err(),
			rdb.Set(ctx, leads.prefix+"soon", past, restoreGrace/2).Err(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, dry := range []bool{true, false} {
			if report, err := s.RestoreTTLsWith(ctx, Restoration{DryRun: dry}); err != nil || report.Changed != 0 || report.Scanned != 4 {
				t.Errorf("dry run %v: %+v, %v", dry, report, err)
			}
		}
		for id, most := range map[string]time.Duration{ids[0]: time.Minute, ids[1]: -1, "past": -1, "soon": restoreGrace / 2} {
			if got := rdb.PTTL(ctx, leads.prefix+id).Val(); got > most || most > 0 && got <= 0 {
				t.Errorf("%s: TTL %v, want %v at most", id, got, most)
			}
		}
	})
}

// A server that lets no script name keys is asked for the names.
func TestExtendWhereScriptsMayNotScan(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, pause := range []time.Duration{0, time.Nanosecond} {
			ctx := testContext(t)
			s := newStore(t, rdb, nil)
			leads := Of[lead](s, "lead", TTL(time.Hour), Jitter(0))
			ids := fillStore(t, ctx, leads, 600)
			extending := s.scripted(ctx, extendScript, 1, 0, 0)
			extending.step = func(context.Context, *redis.Client, uint64, string, int64) (nodeStep, error) {
				return nodeStep{}, movedError("NOPERM User has no permissions to run the 'scan' command")
			}
			report := Report{Pattern: "*"}
			if err := s.sweep(ctx, &report, pause, extending); err != nil || report.Changed != 600 || report.Scanned < 600 {
				t.Errorf("%+v, %v", report, err)
			}
			wantTTLs(t, ctx, leads, ids, 2*time.Hour)
		}
	})
}

// Keys that a node refuses are sent together again where their script is not known.
func TestRefusedKeysOfAnUnknownScript(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead", TTL(time.Hour), Jitter(0))
		ids := fillStore(t, ctx, leads, 300)
		extending := s.scripted(ctx, extendScript, 1, 0, 0)
		err := redisclient.EachMaster(ctx, rdb, func(ctx context.Context, node *redis.Client) error { return node.ScriptFlush(ctx).Err() })
		if err != nil {
			t.Fatal(err)
		}
		var sent pipelines
		rdb.AddHook(&sent)
		if n, _, err := extending.do(ctx, nil, leads.keysOf(ids)); err != nil || n != 300 {
			t.Errorf("%d changed, %v", n, err)
		}
		if alone, together := sent.alone.Load(), sent.together.Load(); alone+together > 10 { // a connection may be new
			t.Errorf("%d commands and %d pipelines were sent", alone, together)
		}
		wantTTLs(t, ctx, leads, ids, 2*time.Hour)
	})
}

// A user who may not name keys may not do so through a script, either, and is told.
func TestExtendAsksForTheRightToScan(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t)).(*redis.Client)
	if err := rdb.Do(ctx, "acl", "setuser", "blind", "on", "nopass", "~*", "&*", "+@all", "-scan").Err(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rdb.Do(ctx, "acl", "deluser", "blind").Err(); err != nil {
			t.Error(err)
		}
	}()
	o := *rdb.Options()
	o.Username, o.Password = "blind", "any"
	blind := redis.NewClient(&o)
	defer blind.Close()
	s := newStore(t, rdb, nil)
	fillStore(t, ctx, Of[lead](s, "lead"), 3)
	report, err := newStore(t, blind, func(o *Options) { o.Prefix = s.opts.Prefix }).ExtendTTLs(ctx, Extension{})
	if !errors.Is(err, ErrIncomplete) || report.Changed != 0 || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestStepsInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var within atomic.Int64
		leave := make(chan struct{})
		turns := change{step: func(context.Context, *redis.Client, uint64, string, int64) (nodeStep, error) {
			within.Add(1)
			<-leave
			within.Add(-1)
			return nodeStep{}, nil
		}}.inTurns(2)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() { _, _ = turns.step(t.Context(), nil, 0, "", 0) })
		}
		for range 5 {
			synctest.Wait()
			if n := within.Load(); n != 2 {
				t.Fatalf("%d in a step", n)
			}
			leave <- struct{}{}
			if within.Load() == 1 { // nobody is left to come
				break
			}
		}
		close(leave)
		wg.Wait()
	})
}

func TestParseStep(t *testing.T) {
	ok := []any{"18446744073709551615", int64(5), int64(4), int64(3), int64(1), []any{"a"}}
	step, err := parseStep(ok, nil)
	if err != nil || step.next != 1<<64-1 || step.found != 5 || step.named != 4 || step.changed != 3 || step.skipped != 1 || !slices.Equal(step.refused, []string{"a"}) {
		t.Errorf("%+v, %v", step, err)
	}
	for i := range ok {
		bad := slices.Clone(ok)
		bad[i] = nil
		if _, err := parseStep(bad, nil); !errors.Is(err, errStepReply) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for _, bad := range [][]any{nil, ok[:5], append(slices.Clone(ok[:5]), []any{int64(1)}), append([]any{"-1"}, ok[1:]...)} {
		if _, err := parseStep(bad, nil); !errors.Is(err, errStepReply) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
