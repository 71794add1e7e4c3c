package rediscluster

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

func TestKillPromotesTheReplicaWithItsData(t *testing.T) {
	ctx, c := healthy(t)
	master := must[*Node](t)(c.MasterFor(ctx, "key"))
	replica := must[*Node](t)(c.ReplicaOf(ctx, master))
	check(t, master.Client().Set(ctx, "key", "kept", 0).Err())
	if n := master.Client().Wait(ctx, 1, 5*time.Second).Val(); n != 1 {
		t.Fatalf("WAIT: %d replicas", n)
	}
	master.Kill()
	if master.Running() {
		t.Fatal("the killed node runs")
	}
	if got := must[*Node](t)(c.ReplicaOf(ctx, master)); got != replica {
		t.Error("the replica of a dead master is not found")
	}
	check(t, c.WaitHealthy(ctx))
	if now := must[*Node](t)(c.MasterFor(ctx, "key")); now != replica {
		t.Fatalf("%s serves the key, want %s", now.name, replica.name)
	}
	if got := client(t, c).Get(ctx, "key").Val(); got != "kept" {
		t.Errorf("GET = %q", got)
	}
	check(t, master.Start(ctx))
	check(t, c.WaitHealthy(ctx))
	if now := must[*Node](t)(c.ReplicaOf(ctx, replica)); now != master {
		t.Error("the old master did not come back as a replica")
	}
	if got := master.Client().DBSize(ctx).Val(); got == 0 {
		t.Error("the old master has not been filled")
	}
}

func TestFreezeMakesACallTimeOut(t *testing.T) {
	ctx, c := healthy(t)
	master := must[*Node](t)(c.MasterFor(ctx, "key"))
	check(t, master.Client().Set(ctx, "key", "v", 0).Err())
	master.Freeze()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := master.Client().Get(short, "key").Err(); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
		t.Errorf("GET on a frozen node: %v, want a timeout", err)
	}
	master.Thaw()
	if got, err := master.Client().Get(ctx, "key").Result(); got != "v" {
		t.Errorf("after Thaw %q, %v", got, err)
	}
}

// A healthy cluster's replicas have what was written last. A master whose replica loads what it got over the network keeps the
// stream from it until its first answer, up to a second later, while both call the link up.
func TestHealthyIsReplicated(t *testing.T) {
	ctx, c := healthy(t)
	master := must[*Node](t)(c.MasterFor(ctx, "key"))
	replica := must[*Node](t)(c.ReplicaOf(ctx, master))
	replica.Kill()
	check(t, master.Client().Do(ctx, "debug", "change-repl-id").Err()) // as a failover does: the replica needs all of it
	check(t, replica.Start(ctx))
	check(t, c.WaitHealthy(ctx))
	check(t, master.Client().Set(ctx, "key", "last", 0).Err())
	master.Freeze()
	conn := replica.Client().Conn()
	defer conn.Close()
	check(t, conn.ReadOnly(ctx).Err())
	var got string
	for deadline := time.Now().Add(time.Second); got != "last" && time.Now().Before(deadline); {
		got = conn.Get(ctx, "key").Val()
	}
	if got != "last" {
		t.Errorf("GET on the replica = %q", got)
	}
}

func TestFrozenMasterIsReplaced(t *testing.T) {
	ctx, c := healthy(t)
	master := must[*Node](t)(c.MasterFor(ctx, "key"))
	replica := must[*Node](t)(c.ReplicaOf(ctx, master))
	master.Freeze()
	check(t, c.WaitHealthy(ctx))
	if now := must[*Node](t)(c.MasterFor(ctx, "key")); now != replica {
		t.Errorf("%s serves the key, want %s", now.name, replica.name)
	}
	master.Thaw()
	check(t, c.WaitHealthy(ctx))
	if now := must[*Node](t)(c.ReplicaOf(ctx, replica)); now != master {
		t.Error("the thawed master did not step down")
	}
}

func TestFailover(t *testing.T) {
	for _, test := range []struct {
		name     string
		failover func(*Node, context.Context) error
	}{
		// Back to back: Redis reuses the votes of an election before a takeover.
		{"planned", (*Node).Failover}, {"takeover", (*Node).Takeover}, {"planned again", (*Node).Failover}, {"forced", (*Node).ForceFailover},
	} {
		name, failover := test.name, test.failover
		t.Run(name, func(t *testing.T) {
			ctx, c := healthy(t)
			rdb := client(t, c)
			check(t, rdb.Set(ctx, "key", name, 0).Err())
			master := must[*Node](t)(c.MasterFor(ctx, "key"))
			if err := master.Failover(ctx); err == nil || !strings.Contains(err.Error(), "ReplicaOf") {
				t.Errorf("failover of a master: %v", err)
			}
			replica := must[*Node](t)(c.ReplicaOf(ctx, master))
			master.Client().Wait(ctx, 1, 5*time.Second)
			check(t, failover(replica, ctx))
			check(t, c.WaitHealthy(ctx))
			if now := must[*Node](t)(c.MasterFor(ctx, "key")); now != replica {
				t.Errorf("%s serves the key, want %s", now.name, replica.name)
			}
			if now := must[*Node](t)(c.ReplicaOf(ctx, replica)); now != master {
				t.Error("the old master does not replicate the new one")
			}
			if got, err := rdb.Get(ctx, "key").Result(); got != name {
				t.Errorf("GET = %q, %v", got, err)
			}
		})
	}
}

func TestMaxMemory(t *testing.T) {
	ctx, c := healthy(t)
	rdb := client(t, c)
	n := must[*Node](t)(c.MasterFor(ctx, "key"))
	t.Cleanup(func() { check(t, n.SetMaxMemory(ctx, 0, "noeviction")) })

	check(t, n.SetMaxMemory(ctx, 1, "noeviction"))
	if err := rdb.Set(ctx, "key", "v", 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "OOM") {
		t.Errorf("SET over maxmemory: %v, want OOM", err)
	}
	check(t, n.SetMaxMemory(ctx, 0, ""))
	for i := range 2000 {
		check(t, n.Client().Set(ctx, "{key}"+strconv.Itoa(i), strings.Repeat("x", 1000), 0).Err())
	}
	used := must[map[string]map[string]string](t)(n.Client().InfoMap(ctx, "memory").Result())["Memory"]["used_memory"]
	bytes := must[int64](t)(strconv.ParseInt(used, 10, 64))
	check(t, n.SetMaxMemory(ctx, bytes-1_000_000, "allkeys-lru"))
	check(t, rdb.Set(ctx, "key", "v", 0).Err())
	if left := n.Client().DBSize(ctx).Val(); left >= 2000 {
		t.Errorf("%d keys left, want some evicted", left)
	}
	if err := n.SetMaxMemory(ctx, 0, "nonsense"); err == nil {
		t.Error("a nonsense policy was accepted")
	}
}

func TestMigrateSlot(t *testing.T) {
	ctx, c := healthy(t)
	rdb := client(t, c)
	check(t, c.Flush(ctx))
	slot := must[int](t)(c.Slot(ctx, "{tag}"))
	keys := make([]string, 250)
	for i := range keys {
		keys[i] = "{tag}" + strconv.Itoa(i)
		check(t, rdb.Set(ctx, keys[i], i, 0).Err())
	}
	from := must[*Node](t)(c.MasterOf(ctx, slot))
	var to *Node
	for _, m := range must[[]*Node](t)(c.Masters(ctx)) {
		if m != from {
			to = m
		}
	}

	m := must[*Migration](t)(c.BeginMigration(ctx, slot, to))
	if moved := must[int](t)(m.Move(ctx, 100)); moved != 100 {
		t.Fatalf("moved %d keys, want 100", moved)
	}
	if n := to.Client().DBSize(ctx).Val(); n != 100 {
		t.Errorf("the target has %d keys, want 100", n)
	}
	asked := 0
	for _, key := range keys {
		if err := from.Client().Get(ctx, key).Err(); err != nil && strings.HasPrefix(err.Error(), "ASK ") {
			asked++
		}
		check(t, rdb.Get(ctx, key).Err()) // the cluster client follows
	}
	if asked != 100 {
		t.Errorf("%d keys are answered with ASK, want 100", asked)
	}
	if err := m.Finish(ctx); err == nil {
		t.Error("Finish with keys left succeeded")
	}

	check(t, c.MigrateSlot(ctx, slot, to)) // carries on where we are
	if now := must[*Node](t)(c.MasterFor(ctx, keys[0])); now != to {
		t.Errorf("%s serves the slot, want %s", now.name, to.name)
	}
	if n := to.Client().ClusterCountKeysInSlot(ctx, slot).Val(); n != int64(len(keys)) {
		t.Errorf("the target has %d keys of the slot, want %d", n, len(keys))
	}
	for i, key := range keys {
		if got, err := rdb.Get(ctx, key).Result(); got != strconv.Itoa(i) {
			t.Fatalf("GET %s = %q, %v", key, got, err)
		}
	}
	if err := from.Client().Get(ctx, keys[0]).Err(); err == nil || !redis.HasErrorPrefix(err, "MOVED") {
		t.Errorf("the old owner says %v, want MOVED", err)
	}
	check(t, c.MigrateSlot(ctx, slot, to)) // nothing to do
	check(t, c.MigrateSlot(ctx, slot, from))
}

// Slots that are moved in opposite directions at once arrive: of two masters that send each other keys neither would answer.
func TestOppositeMigrations(t *testing.T) {
	ctx, c := healthy(t)
	rdb := client(t, c)
	check(t, c.Flush(ctx))
	masters := must[[]*Node](t)(c.Masters(ctx))[:2]
	var moves [2]*Migration
	for i, from := range masters {
		tag := tagOf(t, c, from)
		for k := range 300 {
			check(t, rdb.Set(ctx, tag+strconv.Itoa(k), k, 0).Err())
		}
		moves[i] = must[*Migration](t)(c.BeginMigration(ctx, must[int](t)(c.Slot(ctx, tag)), masters[1-i]))
	}
	var errs [2]error
	var both sync.WaitGroup
	for i, m := range moves {
		both.Go(func() {
			for moved := 1; moved > 0 && errs[i] == nil; {
				moved, errs[i] = m.Move(ctx, 1)
			}
		})
	}
	both.Wait()
	check(t, errors.Join(errs[:]...))
	for i, m := range moves {
		check(t, m.Finish(ctx))
		check(t, c.MigrateSlot(ctx, m.slot, masters[i]))
	}
}

// tagOf is a hash tag whose slot a master serves.
func tagOf(t *testing.T, c *Cluster, master *Node) string {
	t.Helper()
	for i := 0; ; i++ {
		if tag := "{tag" + strconv.Itoa(i) + "}"; must[*Node](t)(c.MasterFor(t.Context(), tag)) == master {
			return tag
		}
	}
}

// A key that a move whose answer was late has left on both masters moves with the next, as the source has it.
func TestMigrationAfterAHalfDoneOne(t *testing.T) {
	ctx, c := healthy(t)
	check(t, c.Flush(ctx))
	masters := must[[]*Node](t)(c.Masters(ctx))
	from, to := masters[0], masters[1]
	tag := tagOf(t, c, from)
	a, b := tag+"a", tag+"b"
	for _, key := range []string{a, b} {
		check(t, from.Client().Set(ctx, key, "new", 0).Err())
	}
	m := must[*Migration](t)(c.BeginMigration(ctx, must[int](t)(c.Slot(ctx, tag)), to))
	for _, key := range []string{a, b} {
		pipe := to.Client().Pipeline()
		pipe.Do(ctx, "asking")
		pipe.Set(ctx, key, "old", 0)
		_ = must[[]redis.Cmder](t)(pipe.Exec(ctx))
	}
	check(t, m.MoveKeys(ctx, a))
	if err := m.MoveKeys(ctx, a); err == nil {
		t.Error("a key that has gone was moved")
	}
	if moved := must[int](t)(m.Move(ctx, 10)); moved != 1 {
		t.Errorf("then %d moved, want 1", moved)
	}
	check(t, m.Finish(ctx))
	for _, key := range []string{a, b} {
		if got := to.Client().Get(ctx, key).Val(); got != "new" {
			t.Errorf("%s = %q", key, got)
		}
	}
	check(t, c.MigrateSlot(ctx, m.slot, from))
}

// A slot that another master takes, with a higher epoch, is lost with its keys.
func TestLoseSlot(t *testing.T) {
	ctx, c := healthy(t)
	from := must[*Node](t)(c.MasterFor(ctx, "{lost}1"))
	slot := must[int](t)(c.Slot(ctx, "{lost}1"))
	check(t, from.Client().Set(ctx, "{lost}1", "v", 0).Err())
	to := must[[]*Node](t)(c.Masters(ctx))[0]
	if to == from {
		to = must[[]*Node](t)(c.Masters(ctx))[1]
	}
	check(t, c.LoseSlot(ctx, slot, to))
	if now := must[*Node](t)(c.MasterOf(ctx, slot)); now != to {
		t.Errorf("%s has the slot, want %s", now.name, to.name)
	}
	if err := client(t, c).Get(ctx, "{lost}1").Err(); err != redis.Nil {
		t.Errorf("GET: %v", err)
	}
	if n := from.Client().ClusterCountKeysInSlot(ctx, slot).Val(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	check(t, c.MigrateSlot(ctx, slot, from))
}

func TestSetClock(t *testing.T) {
	ctx := t.Context()
	c, err := Start(ctx, &Options{Nodes: 1, Clocks: []time.Duration{}})
	if errors.Is(err, localserver.ErrNotInstalled) && os.Getenv("SCALEAWARE_REQUIRE_SERVERS") == "" {
		t.Skip(err)
	}
	check(t, err)
	defer func() { check(t, c.Close()) }()
	n := c.Nodes()[0]
	for _, ahead := range []time.Duration{0, 5 * time.Minute, -5 * time.Minute} {
		check(t, n.SetClock(ahead))
		check(t, poll(ctx, func() error {
			if off := time.Until(n.Client().Time(ctx).Val()) - ahead; off.Abs() > 2*time.Second {
				return errors.New("it is off by " + off.String())
			}
			return nil
		}))
	}
	other := must[*Cluster](t)(Start(ctx, &Options{Nodes: 1}))
	if err := other.Nodes()[0].SetClock(time.Minute); err == nil {
		t.Error("a clock was set that nobody can set")
	}
	check(t, other.Close())
}
