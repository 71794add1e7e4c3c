package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/admin"
)

// fail stores a job as one that has failed.
func fail(t *testing.T, rdb redis.UniversalClient, queue, id, kind string, at time.Time) {
	t.Helper()
	msg := (&message{kind: kind, payload: []byte("{}"), id: id, queue: queue}).encode()
	if err := rdb.HSet(t.Context(), taskPrefix(queue)+id, "msg", msg, "state", "archived").Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.ZAdd(t.Context(), asynqKey(queue, "archived"), redis.Z{Score: float64(at.Unix()), Member: id}).Err(); err != nil {
		t.Fatal(err)
	}
}

// between is a client that does something after the first step of a retry.
type between struct {
	redis.UniversalClient
	steps *int
	do    func()
}

func (b between) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := b.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if cmd.Err() == nil && len(keys) == 2 {
		if *b.steps++; *b.steps == 1 {
			b.do()
		}
	}
	return cmd
}

// Process is how scripts come that are sent once.
func (b between) Process(ctx context.Context, cmd redis.Cmder) error {
	return byDigest(ctx, b.UniversalClient, cmd, b.EvalSha)
}

// Jobs that fail while others are retried are not taken in the place of some that are gone.
func TestRetryFailedTakesNoLaterFailures(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("later")
	if err := retryScript.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i := range 3 {
		fail(t, rdb, q, fmt.Sprint("old", i), "test.note", began.Add(time.Duration(i-10)*time.Second))
	}
	steps := 0
	j := newJobs(t, between{rdb, &steps, func() {
		rdb.ZRem(t.Context(), asynqKey(q, "archived"), "old1")
		fail(t, rdb, q, "new", "test.note", began)
	}}, nil, Queue{Name: q})
	if n, err := j.RetryFailed(t.Context(), q, &RetryFailed{PerSecond: 19}); n != 2 || err != nil { // one in a step
		t.Errorf("RetryFailed = %d, %v, want the 2 that are left", n, err)
	}
	if left := rdb.ZRange(t.Context(), asynqKey(q, "archived"), 0, -1).Val(); len(left) != 1 || left[0] != "new" {
		t.Errorf("%q have failed now, want the new one", left)
	}
	if n, err := j.RetryFailed(t.Context(), q, nil); n != 1 || err != nil {
		t.Errorf("the next RetryFailed = %d, %v", n, err)
	}
}

// A job of one kind is found behind tens of thousands of another one in as many looks as they fill, each of which costs no more than the
// one before; the pace is that of the jobs that come back.
func TestRetryFailedOfOneKindAmongMany(t *testing.T) {
	t.Parallel()
	server := alone(t)
	rdb, q := client(t, server.Addrs()), fresh("needle")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	const others, mine = 40_000, 3
	load := redis.NewScript(`
for i = 1, 2000 do
	local id = ARGV[1] .. "-" .. i
	redis.call("ZADD", KEYS[1], 1800000000 + math.floor(ARGV[1] / 5), id) -- ten thousand in a second
	redis.call("HSET", ARGV[2] .. id, "msg", ARGV[3], "state", "archived")
end`)
	msg := (&message{kind: "test.other", payload: []byte("{}"), id: "x", queue: q}).encode()
	for i := range others / 2000 {
		if err := load.Run(t.Context(), rdb, []string{asynqKey(q, "archived")}, i, taskPrefix(q), msg).Err(); err != nil && !isNil(err) {
			t.Fatal(err)
		}
	}
	for i := range mine {
		fail(t, rdb, q, fmt.Sprint("mine", i), "test.note", time.Unix(1_800_001_000, 0))
	}
	if err := retryScript.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		if err := rdb.ConfigResetStat(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if n, err := j.retryFailed(t.Context(), q, &RetryFailed{Kind: "test.note", PerSecond: 10}, dry); n != mine || err != nil {
			t.Fatalf("dry %v: %d, %v, want %d", dry, n, err, mine)
		}
		stats := rdb.Info(t.Context(), "commandstats").Val()
		calls := func(command string) (n int) {
			_, _ = fmt.Sscanf(infoField(stats, "cmdstat_"+command), "calls=%d,", &n)
			return n
		}
		if n := calls("evalsha"); n > others/step+mine+5 {
			t.Errorf("dry %v: %d steps for %d jobs", dry, n, others)
		}
		if n := calls("hget"); n > others+mine+10 {
			t.Errorf("dry %v: %d jobs were looked at, of %d", dry, n, others+mine)
		}
	}
	if s := status(t, j, q); s.Waiting != mine || s.Failed != others {
		t.Errorf("%d wait and %d have failed", s.Waiting, s.Failed)
	}
}

// A step goes on behind the last one's job, though that has gone, or has failed again, meanwhile.
func TestRetryFailedGoesOnBehindTheLastOne(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for name, meanwhile := range map[string]func(key string) *redis.IntCmd{
		"it stays":            func(key string) *redis.IntCmd { return rdb.ZCard(t.Context(), key) },
		"it has gone":         func(key string) *redis.IntCmd { return rdb.ZRem(t.Context(), key, "d") },
		"all until it":        func(key string) *redis.IntCmd { return rdb.ZRem(t.Context(), key, "a", "b", "c", "d") },
		"it has failed again": func(key string) *redis.IntCmd { return rdb.ZAdd(t.Context(), key, redis.Z{Score: 9, Member: "d"}) },
		"it is said to be old": func(key string) *redis.IntCmd {
			return rdb.ZAdd(t.Context(), key, redis.Z{Score: 1, Member: "d"})
		},
	} {
		q := fresh("cursor")
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} { // all in one second
			fail(t, rdb, q, id, "test.note", time.Unix(5, 0))
		}
		key := asynqKey(q, "archived")
		run := func(score, last string, most int) []any {
			t.Helper()
			got, err := retryScript.Run(t.Context(), rdb, []string{key, asynqKey(q, "pending")},
				taskPrefix(q), most, most, 1, "-inf", "5", score, last, "", true).Slice()
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if got := run("", "", 4); got[0] != int64(4) || got[3] != "d" {
			t.Fatalf("%s: the first step: %v", name, got)
		}
		before := meanwhile(key)
		there := rdb.ZRangeWithScores(t.Context(), key, 0, -1).Val()
		if got := run("5", "d", 10); before.Err() != nil || got[0] != int64(2) || got[3] != "f" {
			t.Errorf("%s: the second step: %v, %v; want e and f", name, got, before.Err())
		}
		if diff := cmp.Diff(there, rdb.ZRangeWithScores(t.Context(), key, 0, -1).Val()); diff != "" {
			t.Errorf("%s: a look has changed what has failed: %s", name, diff)
		}
	}
}

// What gets fresh attempts waits from then on: asynq's own "run all" leaves the time out, and its tools and scalers then see no latency.
func TestRetryFailedWaitsFromThenOn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("since")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 1)
		if n, err := j.Purge(t.Context(), q, Waiting); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		for i := range 3 {
			fail(t, rdb, q, fmt.Sprint(i), "test.note", time.Now().Add(-time.Hour))
		}
		began := time.Now()
		if n, err := j.RetryFailed(t.Context(), q, nil); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		ended := time.Now()
		for i := range 3 {
			since, err := rdb.HGet(t.Context(), taskPrefix(q)+fmt.Sprint(i), "pending_since").Int64()
			if at := time.Unix(0, since); err != nil || at.Before(began) || at.After(ended) {
				t.Errorf("job %d waits since %v, %v; want between %v and %v", i, at, err, began, ended)
			}
		}
		sleep(t.Context(), 300*time.Millisecond)
		most := time.Since(began).Seconds() + 1 // Redis's clock is this machine's
		if age := status(t, j, q).OldestSeconds; age == nil || *age < 0.3 || *age > most {
			t.Errorf("the oldest waits for %v seconds, want 0.3 and a little", age)
		}
		info, err := j.asynq.GetQueueInfo(q)
		if err != nil || info.Latency < 300*time.Millisecond || info.Latency.Seconds() > most {
			t.Errorf("asynq's latency is %v, %v", info.Latency, err)
		}
	})
}

// A dry run counts what a retry would take, and takes nothing.
func TestDryRunOfRetryFailed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("dry")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		at := time.Unix(1_800_000_000, 0)
		for i := range step + 20 {
			kind := "test.note"
			if i%10 == 0 {
				kind = "test.other"
			}
			fail(t, rdb, q, fmt.Sprint(i), kind, at.Add(time.Duration(i)*time.Second))
		}
		run := func(body RetryRequest, dry bool) *Changed {
			t.Helper()
			for _, op := range j.Operations() {
				if op.ID != "queue.retry-failed" {
					continue
				}
				req := httptest.NewRequest(op.Method, "/", nil)
				req.SetPathValue("queue", q)
				reply, err := op.Do(t.Context(), &admin.Call{Actor: "test", DryRun: dry, Request: req, Body: &body})
				if err != nil {
					t.Fatal(err)
				}
				return reply.(*Changed)
			}
			return nil
		}
		for _, c := range []struct {
			body RetryRequest
			want int
		}{
			{RetryRequest{}, step + 20},
			{RetryRequest{PerSecond: 1}, step + 20},
			{RetryRequest{Most: 7}, 7},
			{RetryRequest{Kind: "nothing"}, 0},
			{RetryRequest{After: at.Add(time.Hour)}, 0},
			{RetryRequest{After: at.Add(10 * time.Second), Before: at.Add(29 * time.Second)}, 20},
			{RetryRequest{Kind: "test.other", Before: at.Add(29 * time.Second)}, 3},
			{RetryRequest{Kind: "test.other", Most: 4, PerSecond: 1}, 4},
			{RetryRequest{Kind: "test.other"}, (step + 20) / 10},
		} {
			if got := run(c.body, true); got.Count != c.want || got.Changed != (c.want > 0) || !got.DryRun {
				body, _ := json.Marshal(c.body)
				t.Errorf("dry run of %s: %+v, want %d", body, got, c.want)
			}
		}
		if s := status(t, j, q); s.Failed != step+20 || s.Waiting != 0 {
			t.Errorf("after dry runs %d have failed and %d wait", s.Failed, s.Waiting)
		}
		if got := run(RetryRequest{Kind: "test.other"}, false); got.Count != (step+20)/10 {
			t.Errorf("%+v", got)
		}
	})
}

// A Redis that is full takes no more, and gives back what has failed; a dry run writes nothing.
func TestRetryFailedOfAFullRedis(t *testing.T) {
	t.Parallel()
	server := alone(t)
	rdb, q := client(t, server.Addrs()), fresh("full")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	const n = step + 100
	for i := range n {
		fail(t, rdb, q, fmt.Sprint(i), "test.note", time.Unix(1_800_000_000, 0))
	}
	if err := rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := j.retryFailed(t.Context(), q, &RetryFailed{Kind: "test.note"}, true); got != n || err != nil {
		t.Errorf("dry run: %d, %v, want %d", got, err, n)
	}
	if stats := rdb.Info(t.Context(), "commandstats").Val(); strings.Contains(stats, "cmdstat_zadd") || strings.Contains(stats, "cmdstat_zrem") {
		t.Error("a dry run wrote")
	}
	if got, err := j.RetryFailed(t.Context(), q, nil); got != n || err != nil {
		t.Errorf("RetryFailed = %d, %v, want %d", got, err, n)
	}
	if s := status(t, j, q); s.Waiting != n || s.Failed != 0 {
		t.Errorf("%d wait and %d have failed", s.Waiting, s.Failed)
	}
}

// Jobs come back at the pace that was asked for; broken off, another call goes on.
func TestRetryFailedKeepsItsPace(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, single.Get(t).Addrs()), fresh("pace")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	const n = 21
	for i := range n {
		fail(t, rdb, q, fmt.Sprint(i), "test.note", time.Unix(1_800_000_000, 0))
	}
	began := time.Now()
	if got, err := j.RetryFailed(t.Context(), q, &RetryFailed{PerSecond: 20, Most: 11}); got != 11 || err != nil {
		t.Errorf("RetryFailed = %d, %v", got, err)
	}
	if took := time.Since(began); took < 500*time.Millisecond { // the eleventh
		t.Errorf("11 jobs at 20 a second came back within %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	broken := make(chan error)
	go func() {
		_, err := j.RetryFailed(ctx, q, &RetryFailed{PerSecond: 0.001})
		broken <- err
	}()
	left := func() int64 { return rdb.ZCard(t.Context(), asynqKey(q, "archived")).Val() }
	eventually(t, 10*time.Second, "one more is back", func() bool { return left() == n-12 })
	cancel()
	if err := <-broken; !errors.Is(err, context.Canceled) || left() != n-12 {
		t.Errorf("broken off: %v, %d are left", err, left())
	}
	if got, err := j.RetryFailed(t.Context(), q, nil); got != n-12 || err != nil {
		t.Errorf("then %d, %v", got, err)
	}
}

// A step whose answer was lost is not made again: no more than Most come back, and the caller hears what was counted until then.
func TestRetryFailedKeepsToMostAfterALostAnswer(t *testing.T) {
	t.Parallel()
	onBothCut(t, retryScript.Hash(), func(t *testing.T, plain redis.UniversalClient, rdb *cut) {
		q := fresh("lost-most")
		for i := range 30 {
			fail(t, plain, q, fmt.Sprint(i), "test.note", time.Unix(1_800_000_000, 0))
		}
		j := newJobs(t, rdb.UniversalClient, nil, Queue{Name: q})
		rdb.armed.Store(true)
		n, err := j.RetryFailed(t.Context(), q, &RetryFailed{Most: 10})
		if s := status(t, j, q); n != 0 || err == nil || answered(err) || rdb.sent.Load() != 1 || s.Waiting != 10 || s.Failed != 20 {
			t.Errorf("RetryFailed = %d, %v, sent %d times: %d wait, %d failed", n, err, rdb.sent.Load(), s.Waiting, s.Failed)
		}
	})
}
