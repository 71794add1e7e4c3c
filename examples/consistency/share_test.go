package consistency

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/history"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// delay sets the replicas' lag until the test ends.
func delay(t *testing.T, c *pgcluster.Cluster, lag ...time.Duration) {
	t.Helper()
	for i, d := range lag {
		must(t, c.Replica(i).SetApplyDelay(t.Context(), d))
		t.Cleanup(func() {
			if err := c.Replica(i).SetApplyDelay(context.WithoutCancel(t.Context()), 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReplicaShare: who reads its own writes leaves most reads to replicas all the same. A hundred writes a second come from
// busy people: each writes four times a second, and the replicas are always fifty milliseconds behind.
func TestReplicaShare(t *testing.T) {
	const clients, rounds = 25, 20
	c := postgres.Get(t)
	database := c.Database(t)
	counters(t, c, database, clients)
	f := startFleet(t, instanceConfig{Nodes: nodesOf(c, database)})
	s := seed(t)
	delay(t, c, 50*time.Millisecond, 50*time.Millisecond)
	checker := history.New()
	var group sync.WaitGroup
	began := f.now()
	for i := range int64(clients) {
		person := f.client(checker, "cookie", i+1, 1+(i+1)%clients, rand.New(rand.NewPCG(s, uint64(i))))
		group.Go(func() {
			due := f.now()
			for i := range 3 * rounds {
				due += time.Duration(person.dice.IntN(167)) * time.Millisecond // in the mean a twelfth of a second
				<-time.After(due - f.now())
				person.step(t.Context(), i%3 == 0)
			}
		})
	}
	group.Wait()
	took := f.now() - began
	report := checker.Report(final(t, c.Primary(), database))
	share := report.Total.Share(replica)
	t.Logf("%.0f writes/s, replicas served %.1f %% of the reads\n%v", float64(report.Total.Writes)/took.Seconds(), 100*share, report)
	if broken := report.Broken() - report.Count(history.MonotonicReads); broken > 0 {
		t.Error("promises were broken")
	}
	if share < 0.6 {
		t.Errorf("replicas served %.1f %% of the reads, want 60 %%", 100*share)
	}
}
