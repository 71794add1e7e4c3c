package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// timed sorts what calls took.
func timed(n int, call func()) (took []time.Duration) {
	for range n {
		began := time.Now()
		call()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took
}

func median(sorted []time.Duration) time.Duration { return sorted[len(sorted)/2] }

func percentile99(sorted []time.Duration) time.Duration { return sorted[len(sorted)*99/100] }

// elsewhereThan are keys whose masters are not the one given.
func elsewhereThan(t *testing.T, ctx context.Context, c *rediscluster.Cluster, v *View[lead], victim *rediscluster.Node, n int) (ids []string) {
	t.Helper()
	for i := 0; len(ids) < n; i++ {
		id := fmt.Sprint("else", i)
		if master, err := c.MasterFor(ctx, v.prefix+id); err != nil {
			t.Fatal(err)
		} else if master != victim {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestCostBesideAFrozenMaster(t *testing.T) { costBeside(t, (*rediscluster.Node).Freeze) }

func TestCostBesideADeadMaster(t *testing.T) { costBeside(t, (*rediscluster.Node).Kill) }

// costBeside checks that, while the breaker of a lost master is open, calls to it cost next to nothing, and those to others what
// they did before. Percentiles are of a busy machine, so they are held to less than medians are.
func costBeside(t *testing.T, lose func(*rediscluster.Node)) {
	ctx := testContext(t)
	cluster, leads, victim := breakable(t, ctx, nil)
	running(t, leads.store)
	ids := elsewhereThan(t, ctx, cluster, leads, victim, 50)
	for _, id := range ids {
		if err := leads.Set(ctx, id, lead{Score: 1}); err != nil {
			t.Fatal(err)
		}
	}
	n, failed := 0, 0
	healthy := func() {
		n++
		if l, err := leads.Get(ctx, ids[n%len(ids)]); err != nil || l.Score != 1 {
			failed++
		}
	}
	timed(200, healthy)
	before := timed(500, healthy)
	lose(victim)
	broken := func() bool { _, err := leads.Get(ctx, "{x}1"); return errors.Is(err, errBroken) }
	eventually(t, "the breaker opens", broken)
	failed = 0
	var during, lost []time.Duration
	// Until the others call it dead, which they do after two seconds; then the cluster is down for a while, for all keys.
	for began := time.Now(); len(during) < 60 || len(during) < 600 && time.Since(began) < time.Second; {
		during = append(during, timed(5, healthy)...)
		lost = append(lost, timed(5, func() { _, _ = leads.Get(ctx, "{x}1") })...)
	}
	slices.Sort(during)
	slices.Sort(lost)
	t.Logf("others' keys: median %v, 99th %v before; %v, %v beside the lost master; its own: %v, %v",
		median(before), percentile99(before), median(during), percentile99(during), median(lost), percentile99(lost))
	if got := median(lost); got > 5*time.Millisecond {
		t.Errorf("a call to the lost master takes %v", got)
	}
	// A trial in 250 ms may wait for its answer.
	if got, most := percentile99(lost), leads.store.opts.RedisTimeout+slack; got > most {
		t.Errorf("one call of a hundred to the lost master takes %v, want at most %v", got, most)
	}
	if got, most := median(during), median(before)*3/2+time.Millisecond; got > most {
		t.Errorf("a call to another master takes %v, before it took %v", got, median(before))
	}
	if got, most := percentile99(during), percentile99(before)*3/2+slack/10; got > most {
		t.Errorf("one call of a hundred to another master takes %v, before it took %v", got, percentile99(before))
	}
	if failed > len(during)/10 { // the machine may have been away for longer than the others wait
		t.Errorf("%d of %d calls to others failed", failed, len(during))
	}
}

// When a replica has taken over, calls to its keys work within a second, with no trial of the dead one's address.
func TestResumesAfterFailover(t *testing.T) {
	ctx := testContext(t)
	cluster, leads, victim := breakable(t, ctx, nil)
	s := running(t, leads.store)
	near := Of[lead](s, "near", InProcess(Local{}))
	settled(t, ctx, near, "{x}1", loads(lead{Score: 1}))
	replica, err := cluster.ReplicaOf(ctx, victim)
	if err != nil {
		t.Fatal(err)
	}
	victim.Kill()
	promoted := func() bool {
		role, err := replica.Client().Do(ctx, "ROLE").Slice()
		return err == nil && role[0] == "master" && replica.Client().Set(ctx, leads.prefix+"{x}probe", "", time.Minute).Err() == nil
	}
	for !promoted() {
		if _, err := leads.Load(ctx, "{x}1", loads(lead{Score: 2})); err != nil {
			t.Fatalf("while nobody has the slot: %v", err)
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	eventually(t, "a value is set and got", func() bool {
		if leads.Set(ctx, "{x}1", lead{Score: 3}) != nil {
			return false
		}
		l, err := leads.Get(ctx, "{x}1")
		return err == nil && l.Score == 3
	})
	if took := time.Since(began); took > time.Second+slack {
		t.Errorf("it took %v", took)
	} else {
		t.Log("after", took)
	}
	covered(t, s)
	settled(t, ctx, near, "{x}1", loads(lead{Score: 3}))
}
