package queue

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// many is SCALEAWARE_JOBS, or what is enough for every day.
func many(t *testing.T, everyDay int) int {
	t.Helper()
	text := os.Getenv("SCALEAWARE_JOBS")
	if text == "" {
		return everyDay
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("SCALEAWARE_JOBS is %q, want a number", text)
	}
	return n
}

// Worker processes are killed again and again while they work off many jobs, each of which is on its last attempt. None is
// lost, none fails, and those of a dead worker go on within 20 seconds.
func TestDeathsAmongManyJobs(t *testing.T) {
	t.Parallel()
	n := many(t, 4000)
	deaths := max(2, min(20, n/2000))
	rdb := client(t, cluster.Get(t).Addrs())
	q := Queue{Name: fresh("deaths")}
	j := newJobs(t, rdb, nil, q)
	var mu sync.Mutex
	runs, ended, runner := make([]int, n), make([]bool, n), make([]*bool, n)
	underWay, unrecorded, alive := 0, 0, 0 // jobs that ran again, by what the worker that had them before was about
	var ran atomic.Int64
	dead := map[*child]*bool{}
	begin := func() *child {
		died := new(bool)
		c := startChild(t, childConfig{Addrs: cluster.Get(t).Addrs(), Queues: []Queue{q}}, func(what string, i int64) {
			mu.Lock()
			defer mu.Unlock()
			switch what {
			case "run":
				if runs[i]++; runs[i] > 1 {
					switch {
					case !*runner[i]:
						alive++
					case ended[i]:
						unrecorded++
					default:
						underWay++
					}
				}
				runner[i] = died
			case "end":
				if !ended[i] {
					ended[i] = true
					ran.Add(1)
				}
			}
		})
		dead[c] = died
		return c
	}
	workers := []*child{begin(), begin(), begin()}
	next, killed := 0, 0
	var died time.Time
	for killed < deaths || next < n {
		if size := min(200, n-next); size > 0 {
			jobs := make([]Job, size)
			for i := range jobs {
				jobs[i] = note{N: next + i}
			}
			if _, err := j.EnqueueMany(t.Context(), jobs, On(q.Name), MaxRetry(0)); err != nil {
				t.Fatal(err)
			}
			next += size
		}
		if killed < deaths && next*deaths >= killed*n {
			victim := workers[killed%len(workers)]
			mu.Lock()
			*dead[victim] = true
			mu.Unlock()
			victim.kill() // wherever it is
			died = time.Now()
			workers[killed%len(workers)] = begin()
			killed++
		}
	}
	eventually(t, time.Minute+time.Duration(n)*time.Millisecond, "all have run", func() bool { return ran.Load() == int64(n) })
	eventually(t, time.Minute, "all are recorded", func() bool { s, err := j.readDepth(t.Context(), q.Name); return err == nil && s.Waiting+s.Active == 0 })
	took := time.Since(died)
	s := status(t, j, q.Name)
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d jobs, %d deaths: all had run and were recorded %v after the last one, %d ran twice, of which the end of %d was not recorded", n, killed,
		took.Round(time.Millisecond), underWay+unrecorded+alive, unrecorded)
	if s.Failed+s.Retrying > 0 {
		t.Errorf("deaths have cost attempts: %+v", s)
	}
	if alive > 0 {
		t.Errorf("%d jobs of workers that live ran twice", alive)
	}
	if most := deaths * 20; underWay > most {
		t.Errorf("%d jobs ran twice that were under way, the dead had %d slots", underWay, most)
	}
	if most := deaths * 80; unrecorded > most { // MaxConcurrency
		t.Errorf("%d jobs ran twice that had ended, the dead were to have %d without a record at most", unrecorded, most)
	}
	if n <= 10_000 && took > 25*time.Second {
		t.Errorf("the last death's jobs were done %v after it", took)
	}
}

// What is done to very many jobs at once holds Redis up for milliseconds. A script of another try is not held up by the machine.
func TestManyJobsAreMovedInSteps(t *testing.T) {
	n := many(t, 20_000)
	rdb := client(t, alone(t).Addrs())
	const tries, most = 4, 50 * time.Millisecond
	var longest time.Duration
	for range tries {
		if longest = manyMoved(t, rdb, n); longest <= most {
			return
		}
	}
	t.Errorf("a script took %v of Redis's time in each of %d tries, want %v at most", longest, tries, most)
}

// manyMoved returns how long the longest script has kept Redis.
func manyMoved(t *testing.T, rdb redis.UniversalClient, n int) (longest time.Duration) {
	t.Helper()
	q := fresh("steps")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	ctx := t.Context()
	for at := 0; at < n; at += 5000 {
		jobs := make([]Job, min(5000, n-at))
		for i := range jobs {
			jobs[i] = note{N: at + i}
		}
		if _, err := j.EnqueueMany(ctx, jobs, MaxRetry(0)); err != nil {
			t.Fatal(err)
		}
	}
	step := func(what string, do func() (int, error)) {
		t.Helper()
		slowest := scriptsOf(t, rdb)
		stalls := probe(t, rdb)
		began := time.Now()
		got, err := do()
		took, worst := time.Since(began), stalls()
		if got != n || err != nil {
			t.Fatalf("%s: %d of %d, %v", what, got, n, err)
		}
		script := slowest()
		longest = max(longest, script)
		t.Logf("%s of %d jobs: %v, the longest answer to another client meanwhile %v, the longest script %v", what, n, took.Round(time.Millisecond), worst.Round(10*time.Microsecond), script)
	}
	step("park", func() (int, error) { return j.Park(ctx, q) })
	step("unpark", func() (int, error) { return j.Unpark(ctx, q) })
	ids := pendingIDs(t, rdb, q)
	for at := 0; at < n; at += 5000 { // as if they had failed
		pipe := rdb.Pipeline()
		for _, id := range ids[at:min(n, at+5000)] {
			pipe.ZAdd(ctx, asynqKey(q, "archived"), redis.Z{Score: float64(time.Now().Unix()), Member: id})
			pipe.HSet(ctx, taskPrefix(q)+id, "state", "archived")
		}
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := rdb.Unlink(ctx, asynqKey(q, "pending")).Err(); err != nil {
		t.Fatal(err)
	}
	step("retry", func() (int, error) { return j.RetryFailed(ctx, q, nil) })
	step("purge", func() (int, error) { return j.Purge(ctx, q, Waiting) })
	return longest
}

// scriptsOf returns how long the longest script took since, as Redis has measured it; 0 if none took a millisecond.
func scriptsOf(t *testing.T, rdb redis.UniversalClient) (slowest func() time.Duration) {
	t.Helper()
	ctx := t.Context()
	if err := errors.Join(rdb.ConfigSet(ctx, "slowlog-log-slower-than", "1000").Err(), rdb.ConfigSet(ctx, "slowlog-max-len", "100000").Err(), rdb.Do(ctx, "SLOWLOG", "RESET").Err()); err != nil {
		t.Fatal(err)
	}
	return func() (longest time.Duration) {
		log, err := rdb.(interface {
			SlowLogGet(ctx context.Context, num int64) *redis.SlowLogCmd
		}).SlowLogGet(ctx, -1).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range log {
			if strings.HasPrefix(strings.ToLower(entry.Args[0]), "eval") {
				longest = max(longest, entry.Duration)
			}
		}
		return longest
	}
}

// probe asks Redis every millisecond until stop, which returns how long the longest answer took.
func probe(t *testing.T, rdb redis.UniversalClient) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	worst := make(chan time.Duration)
	go func() {
		var longest time.Duration
		for sleep(ctx, time.Millisecond) {
			began := time.Now()
			if rdb.Ping(context.Background()).Err() == nil {
				longest = max(longest, time.Since(began))
			}
		}
		worst <- longest
	}()
	return func() time.Duration { cancel(); return <-worst }
}
