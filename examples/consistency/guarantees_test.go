package consistency

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/history"
)

// goal is how many pairs a run makes. Those of every day end after some time, but not before each carrier has its least.
type goal struct {
	pairs, least int
	until        time.Time // zero: none
}

// everyday is the goal, or SCALEAWARE_PAIRS, which takes the time that it takes.
func everyday(t *testing.T) goal {
	t.Helper()
	text := os.Getenv("SCALEAWARE_PAIRS")
	if text == "" {
		return goal{pairs: 20_000, least: 200, until: time.Now().Add(15 * time.Second)}
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return goal{pairs: n, least: n}
}

// long reports whether a run takes a minute or more, in which replicas can get far behind several times.
func (g goal) long() bool { return g.until.IsZero() && g.pairs >= 50_000 }

// crowd says how many clients use each way, and which share of the pairs they make, in percent. Jobs wait for workers.
var crowd = map[string]struct{ clients, share int }{
	"session": {12, 22}, "cookie": {12, 24}, "header": {12, 24}, "job": {24, 10}, "cache": {12, 20},
}

// run lets the crowd of each carrier work until the goal is reached, and returns when all have ended. Counters are numbered
// from 1.
func (g goal) run(t *testing.T, f *fleet, checker *history.Checker, seed uint64, carriers ...string) {
	t.Helper()
	var group sync.WaitGroup
	first := int64(1)
	for _, via := range carriers {
		n, made := int64(crowd[via].clients), new(atomic.Int64)
		most := int64(g.pairs * crowd[via].share / 100)
		more := func() bool {
			i := made.Add(1)
			return i <= most && (g.until.IsZero() || i <= int64(g.least) || time.Now().Before(g.until)) && t.Context().Err() == nil
		}
		for i := range n {
			own, peer := first+i, first+(i+1)%n
			person := f.client(checker, via, own, peer, rand.New(rand.NewPCG(seed, uint64(own)+100)))
			group.Go(func() {
				if err := person.login(t.Context()); err != nil {
					t.Error(err)
					return
				}
				for more() {
					person.step(t.Context(), true)
					if person.dice.IntN(4) == 0 {
						person.step(t.Context(), false)
					}
				}
				person.step(t.Context(), false)
			})
		}
		first += n
	}
	group.Wait()
}

// people is how many clients those carriers have.
func people(carriers ...string) (n int) {
	for _, via := range carriers {
		n += crowd[via].clients
	}
	return n
}

// replica tells the nodes that are replicas.
func replica(node string) bool { return strings.HasPrefix(node, "replica") }

// TestSessionGuarantees is the whole promise at once.
func TestSessionGuarantees(t *testing.T) {
	c := postgres.Get(t)
	database := c.Database(t)
	last := int64(people(carriers...) + 1)
	counters(t, c, database, int(last))
	f := startFleet(t, instanceConfig{Nodes: nodesOf(c, database), Monotonic: true})
	s := seed(t)
	g := everyday(t)
	lag, stopLag := startLag(t, c, s, g.long())
	stopControl := startControl(t, c, database, last, 1)
	checker := history.New()
	began := f.now()
	g.run(t, f, checker, s, carriers...)
	took := f.now() - began
	unprotected := stopControl()
	stopLag()

	report := checker.Report(final(t, c.Primary(), database))
	t.Logf("%v, lag in %v\n%v", took.Round(time.Millisecond), lag, report)
	t.Logf("who carries nothing:\n%v", unprotected)
	if report.Broken() > 0 {
		t.Error("promises were broken")
	}
	for _, via := range carriers {
		enough(t, via, report.Tallies[via], min(g.least, g.pairs*crowd[via].share/100))
	}
	if unprotected.Count(history.ReadYourWrites) == 0 || unprotected.Count(history.MonotonicReads) == 0 {
		t.Error("who carries nothing saw no stale read: the replicas did not lag")
	}
	for _, l := range lags {
		if lag.dealt[l] == 0 {
			t.Errorf("the lag %v was never in force", l)
		}
	}
	if g.long() && (max(lag.seen.most[0], lag.seen.most[1]) < 2*far || lag.seen.far[0]+lag.seen.far[1] < took/10) {
		t.Errorf("the replicas did not get far behind: %v", &lag.seen)
	}
	if bad := report.Total.FailedReads + report.Total.FailedWrites + report.Total.UnknownWrites; bad*50 > report.Total.Reads {
		t.Errorf("%d operations failed", bad)
	}
}

// enough fails a carrier whose reads could hardly have been stale: too few, or from the primary.
func enough(t *testing.T, via string, tally *history.Tally, pairs int) {
	t.Helper()
	if tally.Pairs < pairs*9/10 {
		t.Errorf("%s: %d pairs, want %d", via, tally.Pairs, pairs)
	}
	if share := tally.Share(func(node string) bool { return node != "primary" }); share < 0.2 || tally.Share(replica) == 0 {
		t.Errorf("%s: replicas served %.0f %% of the reads: what the primary answers is never stale", via, 100*share)
	}
}

// TestWithoutMonotonicReads: without the option only what was written travels, so who reads twice may go back in time, and the
// history shows it.
func TestWithoutMonotonicReads(t *testing.T) {
	c := postgres.Get(t)
	database := c.Database(t)
	clients := people("cookie")
	counters(t, c, database, clients)
	f := startFleet(t, instanceConfig{Nodes: nodesOf(c, database)})
	s := seed(t)
	delay(t, c, 0, time.Second)
	checker := history.New()
	var group sync.WaitGroup
	for i := range clients {
		own, peer := int64(i+1), int64(1+(i+1)%clients)
		person := f.client(checker, "cookie", own, peer, rand.New(rand.NewPCG(s, uint64(own))))
		group.Go(func() {
			// Half of them write all the time, and the others look at them.
			for range 100 {
				person.step(t.Context(), own%2 == 0 || person.dice.IntN(20) == 0)
			}
		})
	}
	group.Wait()
	report := checker.Report(final(t, c.Primary(), database))
	t.Log(report)
	if report.Count(history.MonotonicReads) == 0 {
		t.Error("nobody went back in time: the run could not have shown it")
	}
	if report.Broken() > report.Count(history.MonotonicReads) {
		t.Error("promises were broken that hold without the option")
	}
}
