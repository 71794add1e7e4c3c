package queue

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// What handlers see is later than the limiter's stamp, and not by the same for all, so a second of theirs may hold jobs of more
// than a second of the limiter's. The guard band makes up for it: of the jobs that handlers get within it, in four processes, no
// second holds more than the limit. A busy machine is late: it goes on with the queues of which too few jobs were in time.
func TestLimitsHoldAtTheHandlers(t *testing.T) { // alone
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		addrs := single.Get(t).Addrs()
		if strings.HasSuffix(t.Name(), "/cluster") {
			addrs = cluster.Get(t).Addrs()
		}
		queues := []Queue{
			{Name: "critical", Rate: Rate{Max: 1000, Per: time.Second}, Weight: 6},
			{Name: "normal", Rate: Rate{Max: 100, Per: time.Second}, Weight: 3},
			{Name: "low", Rate: Rate{Max: 10, Per: time.Second}},
		}
		const tries = 20
		for range tries {
			if queues = handlersObey(t, rdb, addrs, queues); len(queues) == 0 {
				return
			}
		}
		t.Errorf("in %d tries so few jobs of %+v were in time that nothing is proven", tries, queues)
	})
}

// handlersObey runs jobs of some queues, and returns those of which too few were in time.
func handlersObey(t *testing.T, rdb redis.UniversalClient, addrs []string, wanted []Queue) (unproven []Queue) {
	queues := slices.Clone(wanted)
	for i := range queues {
		queues[i].Name = fresh(wanted[i].Name)
	}
	j := newJobs(t, rdb, nil, queues...)
	for _, q := range queues {
		jobs := make([]Job, 6*q.Rate.Max)
		for i := range jobs {
			jobs[i] = note{N: i}
		}
		if _, err := j.EnqueueMany(t.Context(), jobs, On(q.Name), MaxRetry(0)); err != nil {
			t.Fatal(err)
		}
	}
	var all, inTime starts
	children := make([]*child, 4)
	var group sync.WaitGroup
	for i := range children {
		children[i] = startChild(t, childConfig{Addrs: addrs, Queues: queues, Late: true}, func(what string, at int64) {
			late, queue, ok := strings.Cut(strings.TrimPrefix(what, "late:"), ":")
			if !ok {
				return
			}
			all.told(queue, at)
			if us, err := strconv.ParseInt(late, 10, 64); err == nil && us < queues[0].Rate.guard().Microseconds() {
				inTime.told(queue, at)
			}
		})
	}
	sleep(t.Context(), 4*time.Second)
	for _, c := range children {
		group.Go(c.stop)
	}
	group.Wait()
	for i, q := range queues {
		most, of := inTime.most(q.Name, time.Second), all.most(q.Name, time.Second)
		t.Logf("%s: of %d jobs %d were in time; the worst second of a handler's clock holds %d of these, and %d of all", q.Name, all.count(q.Name), inTime.count(q.Name), most, of)
		if most > q.Rate.Max {
			t.Errorf("%s: %d began in a second, the limit is %d", q.Name, most, q.Rate.Max)
		}
		if 2*most <= q.Rate.Max {
			unproven = append(unproven, wanted[i])
		}
	}
	return unproven
}
