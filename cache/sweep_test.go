package cache

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// ofTest are keys of the stores of other tests, which share the servers; some end meanwhile.
var ofTest = regexp.MustCompile(`^t\d+:`)

// snapshot is every key that is not the store's, with its bytes and its end.
func snapshot(t *testing.T, ctx context.Context, s *Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	l, _, err := s.layout(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l {
		for _, key := range p.node.Keys(ctx, "*").Val() {
			if !ofTest.MatchString(key) {
				all[key] = fmt.Sprintf("%x until %d", p.node.Dump(ctx, key).Val(), p.node.Do(ctx, "pexpiretime", key).Val())
			}
		}
	}
	return all
}

// strangers puts keys of others, with and without TTL, next to the store.
func strangers(t *testing.T, ctx context.Context, s *Store) {
	t.Helper()
	for i := range 20 {
		n := fmt.Sprint(i)
		for _, err := range []error{
			s.rdb.Set(ctx, "scs:session:"+n, "state", time.Hour).Err(),
			s.rdb.HSet(ctx, "asynq:{default}:t:"+n, "msg", "x").Err(),
			s.rdb.Set(ctx, "scaleaware:flag:"+n, "on", 0).Err(),
			s.rdb.Set(ctx, strings.TrimSuffix(s.opts.Prefix, ":")+n, "neighbour", time.Hour).Err(),
			s.rdb.Set(ctx, "x"+s.opts.Prefix+"lead:"+n, "neighbour", time.Hour).Err(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func fillStore(t *testing.T, ctx context.Context, v *View[lead], n int) []string {
	t.Helper()
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprint(i))
		if err := v.Set(ctx, fmt.Sprint(i), lead{Score: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	return ids
}

func TestStarLeavesEverybodyElseAlone(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead")
		ids := fillStore(t, ctx, leads, 1500)
		if err := rdb.Set(ctx, s.extensionKey(), "mine", time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		strangers(t, ctx, s)
		before := snapshot(t, ctx, s)
		if len(before) < 100 {
			t.Fatalf("only %d strangers", len(before))
		}
		dry, err := s.InvalidateWith(ctx, Invalidation{Pattern: "*", DryRun: true})
		if err != nil || dry.Changed != 1500 || !dry.Complete || !dry.DryRun {
			t.Fatalf("dry run: %+v, %v", dry, err)
		}
		report, err := s.Invalidate(ctx, "*")
		if err != nil || report.Changed != 1500 || !report.Complete {
			t.Fatalf("%+v, %v", report, err)
		}
		if found, err := leads.GetMany(ctx, ids); err != nil || len(found) != 0 {
			t.Errorf("%d entries left, %v", len(found), err)
		}
		if diff := cmp.Diff(before, snapshot(t, ctx, s)); diff != "" {
			t.Errorf("strangers changed: %s", diff)
		}
		if rdb.Get(ctx, s.extensionKey()).Val() != "mine" {
			t.Error("the store's own state is gone")
		}
	})
}

func TestInvalidateByPattern(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads, events := Of[lead](s, "lead"), Of[lead](s, "event")
		ids := fillStore(t, ctx, leads, 30)
		fillStore(t, ctx, events, 30)
		if report, err := s.Invalidate(ctx, "lead:1?"); err != nil || report.Changed != 10 {
			t.Errorf("%+v, %v", report, err)
		}
		found, _ := leads.GetMany(ctx, ids)
		other, _ := events.GetMany(ctx, ids)
		if _, ok := found["12"]; ok || len(found) != 20 || len(other) != 30 {
			t.Errorf("%d and %d left", len(found), len(other))
		}
		if _, err := s.Invalidate(ctx, "scs:session:*"); !errors.Is(err, ErrPattern) {
			t.Errorf("got %v", err)
		}
	})
}

// route returns the slot of a key, the master that has it, and another one.
func route(t *testing.T, ctx context.Context, cluster *rediscluster.Cluster, key string) (slot int, from, to *rediscluster.Node) {
	t.Helper()
	slot, err := cluster.Slot(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if from, err = cluster.MasterOf(ctx, slot); err != nil {
		t.Fatal(err)
	}
	all, err := cluster.Masters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return slot, from, all[slices.IndexFunc(all, func(n *rediscluster.Node) bool { return n.Addr() != from.Addr() })]
}

// Keys that move from a node that was not yet swept to one that was are found.
func TestSweepDuringSlotMigration(t *testing.T) {
	cluster := six.Get(t)
	ctx := testContext(t)
	rdb := client(t, cluster)
	s := newStore(t, rdb, nil)
	leads := Of[lead](s, "lead")
	var ids []string
	for i := range 400 { // in one slot
		id := fmt.Sprintf("{moving}%d", i)
		ids = append(ids, id)
		if err := leads.Set(ctx, id, lead{}); err != nil {
			t.Fatal(err)
		}
	}
	slot, from, to := route(t, ctx, cluster, leads.prefix+ids[0])
	m, err := cluster.BeginMigration(ctx, slot, to)
	if err != nil {
		t.Fatal(err)
	}
	done := false
	defer func() {
		for !done {
			if n, err := m.Move(ctx, 100); err != nil || n == 0 {
				break
			}
		}
		if err := m.Finish(ctx); err != nil {
			t.Error(err)
		}
		if err := cluster.MigrateSlot(ctx, slot, from); err != nil {
			t.Error(err)
		}
	}()
	if _, err := m.Move(ctx, 100); err != nil {
		t.Fatal(err)
	}
	// The target is swept to its end before the source begins; meanwhile 100 more keys arrive at the target.
	before, _, err := s.layout(ctx)
	if err != nil {
		t.Fatal(err)
	}
	report := Report{Pattern: "*", Nodes: map[string]NodeReport{}}
	if err := s.visit(ctx, &report, before, []string{to.Addr()}, 0, s.unlinking()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Move(ctx, 100); err != nil {
		t.Fatal(err)
	}
	if err := s.visit(ctx, &report, before, []string{from.Addr()}, 0, s.unlinking()); err != nil {
		t.Fatal(err)
	}
	left, err := leads.GetMany(ctx, ids)
	if err != nil || len(left) != 100 {
		t.Fatalf("%d left, %v: the test does not show what it should", len(left), err)
	}
	after, _, err := s.layout(ctx)
	if err != nil {
		t.Fatal(err)
	}
	due := again(before, after, true)
	if !slices.Equal(due, []string{to.Addr()}) {
		t.Fatalf("due again: %v, want %v", due, to.Addr())
	}
	if err := s.visit(ctx, &report, after, due, 0, s.unlinking()); err != nil {
		t.Fatal(err)
	}
	if left, err := leads.GetMany(ctx, ids); err != nil || len(left) != 0 {
		t.Errorf("%d left, %v", len(left), err)
	}
}

// A whole sweep while a slot keeps moving.
func TestInvalidateDuringLiveMigration(t *testing.T) {
	cluster := six.Get(t)
	ctx := testContext(t)
	s := newStore(t, client(t, cluster), nil)
	leads := Of[lead](s, "lead")
	var ids []string
	for i := range 2000 {
		ids = append(ids, fmt.Sprintf("{live}%d", i))
		if err := leads.Set(ctx, ids[i], lead{}); err != nil {
			t.Fatal(err)
		}
	}
	slot, err := cluster.Slot(ctx, leads.prefix+ids[0])
	if err != nil {
		t.Fatal(err)
	}
	home, err := cluster.MasterOf(ctx, slot)
	if err != nil {
		t.Fatal(err)
	}
	all, err := cluster.Masters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	moved := make(chan error, 1)
	go func() {
		for _, to := range append(all, home) {
			if err := cluster.MigrateSlot(ctx, slot, to); err != nil {
				moved <- err
				return
			}
		}
		moved <- nil
	}()
	report, err := s.Invalidate(ctx, "*")
	if err != nil || !report.Complete {
		t.Errorf("%+v, %v", report, err)
	}
	if left, err := leads.GetMany(ctx, ids); err != nil || len(left) != 0 {
		t.Errorf("%d left, %v", len(left), err)
	}
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
}

// A sweep with pauses pauses for each batch of its own keys, and goes faster over those of others.
func TestPauseIsForOwnKeys(t *testing.T) {
	for name, c := range map[string]struct{ ours, steps, want int }{
		"all ours":            {25, 100, 100},
		"all of others":       {0, 100, 5},
		"one in twenty-five":  {1, 100, 8},
		"more than were due":  {60, 10, 10},
		"hardly anything yet": {0, 19, 0},
	} {
		var p pace
		pauses := 0
		for range c.steps {
			if p.tires(c.ours, politeBatch) {
				pauses++
			}
		}
		if pauses != c.want {
			t.Errorf("%s: %d pauses in %d steps, want %d", name, pauses, c.steps, c.want)
		}
	}
}

func TestAgain(t *testing.T) {
	rest := layout{"a": {slots: "1 0-100"}, "b": {slots: "2 101-200"}}
	arriving := layout{"a": {slots: "1 0-100 [5->-b]"}, "b": {slots: "2 101-200 [5-<-a]", moving: true}}
	arrived := layout{"a": {slots: "1 0-4 6-100"}, "b": {slots: "3 5 101-200"}}
	promoted := layout{"a": {slots: "1 0-100"}, "c": {slots: "4 101-200"}}
	for _, c := range []struct {
		name          string
		before, after layout
		first         bool
		want          []string
	}{
		{"nothing moved", rest, rest, true, nil},
		{"began to move", rest, arriving, true, []string{"a", "b"}},
		{"was moving all the time", arriving, arriving, true, []string{"b"}},
		{"goes on moving while visited again", arriving, arriving, false, nil},
		{"arrived", arriving, arrived, false, []string{"a", "b"}},
		{"failover", rest, promoted, true, []string{"c"}},
	} {
		if got := again(c.before, c.after, c.first); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestParsePlace(t *testing.T) {
	text := "aa 127.0.0.1:1@2,host master - 0 0 1 connected 0-5\n" +
		"bb 127.0.0.1:3@4 myself,master - 0 0 7 connected 6-9 11 [12-<-aa]\n"
	p, err := parsePlace(text)
	if err != nil || p.slots != "7 6-9 11 [12-<-aa]" || !p.moving {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "x y z\n", "bb 127.0.0.1:3@4 myself,slave aa 0 0 7 connected\n"} {
		if _, err := parsePlace(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

// Invalidations and restorations go easy on Redis when they are asked to, and do as much.
func TestSweepsPauseWhenAsked(t *testing.T) {
	const keys, pause, least = 400, 20 * time.Millisecond, 50 * time.Millisecond // fifteen times a quarter of the pause
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	leads := Of[lead](s, "lead", TTL(time.Hour))
	fillStore(t, ctx, leads, keys)
	for _, step := range []struct {
		name string
		do   func() (Report, error)
	}{
		{"extend", func() (Report, error) { return s.ExtendTTLs(ctx, Extension{Pause: pause}) }},
		{"restore", func() (Report, error) { return s.RestoreTTLsWith(ctx, Restoration{Pause: pause}) }},
		{"count", func() (Report, error) {
			return s.InvalidateWith(ctx, Invalidation{Pattern: "lead:*", Pause: pause, DryRun: true})
		}},
		{"invalidate", func() (Report, error) { return s.InvalidateWith(ctx, Invalidation{Pattern: "lead:*", Pause: pause}) }},
	} {
		report, err := step.do()
		if err != nil || report.Changed != keys || report.Seconds < least.Seconds() {
			t.Errorf("%s: %+v, %v", step.name, report, err)
		}
	}
}

// A report names the master by its address, also where the client asks Sentinel for it.
func TestReportNamesTheMasterBehindSentinel(t *testing.T) {
	ctx := testContext(t)
	addr := one.Get(t).Addrs()[0]
	rdb := redis.NewClient(&redis.Options{Addr: behindSentinel, Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}})
	defer rdb.Close()
	s := newStore(t, rdb, nil)
	report, err := s.Invalidate(ctx, "*")
	if _, named := report.Nodes[addr]; err != nil || !named || len(report.Nodes) != 1 {
		t.Errorf("%+v, %v", report, err)
	}
}
