package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// Jobs that are enqueued together fare as if each had been alone, and are what asynq would have stored.
func TestEnqueueMany(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		q, other := fresh("many"), fresh("other")
		j := newJobs(t, rdb, nil, Queue{Name: q}, Queue{Name: other})
		jobs := make([]Job, 1203)
		for i := range jobs {
			jobs[i] = note{N: i}
		}
		jobs[7], jobs[8] = strayNote{}, note{Text: strings.Repeat("x", maxPayload)}
		infos, err := j.EnqueueMany(ctx, jobs, On(q), MaxRetry(3), Timeout(time.Minute), Retention(time.Hour), Header("who", "me"))
		if infos[7].Err == nil || infos[8].Err == nil || !errors.Is(err, infos[7].Err) || infos[6].Err != nil {
			t.Errorf("EnqueueMany = %v", err)
		}
		if s := status(t, j, q); s.Waiting != 1201 {
			t.Errorf("%d jobs are stored, want 1201", s.Waiting)
		}
		info, err := asynq.NewInspectorFromRedisClient(rdb).GetTaskInfo(q, infos[1202].ID)
		if err != nil || info.MaxRetry != 3 || info.Timeout != time.Minute || info.Retention != time.Hour || info.Headers["who"] != "me" || string(info.Payload) != `{"n":1202}` || info.Type != "test.note" {
			t.Errorf("asynq reads %+v, %v", info, err)
		}
		// The order is theirs.
		if ids := pendingIDs(t, rdb, q); ids[len(ids)-1] != infos[0].ID || ids[0] != infos[1202].ID {
			t.Error("the order has changed")
		}
		if _, err := j.EnqueueMany(ctx, []Job{note{}, note{}}, On(q), ID("one")); err == nil {
			t.Error("two jobs with one ID were taken")
		}
		if infos, err := j.EnqueueMany(ctx, nil, On(other)); len(infos) != 0 || err != nil {
			t.Errorf("none: %v, %v", infos, err)
		}
	})
}

// strayNote names a kind that cannot be.
type strayNote struct{}

func (strayNote) Kind() string { return "{}" }

func TestUniqueAndIDs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		q := fresh("unique")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		if _, err := j.Enqueue(ctx, note{N: 1}, Unique(time.Hour), ID("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Enqueue(ctx, note{N: 1}, Unique(time.Hour)); !errors.Is(err, ErrExists) {
			t.Errorf("a second one of the same payload: %v", err)
		}
		// An ID that is taken takes no lock: asynq leaves one that nobody ever frees.
		if _, err := j.Enqueue(ctx, note{N: 2}, Unique(time.Hour), ID("a")); !errors.Is(err, ErrExists) {
			t.Errorf("a second one of the same ID: %v", err)
		}
		if _, err := j.Enqueue(ctx, note{N: 2}, Unique(time.Hour)); err != nil {
			t.Errorf("the refused one has left its lock: %v", err)
		}
		if err := asynqClient(rdb).enqueue(q, `{"n":2}`); !errors.Is(err, asynq.ErrDuplicateTask) {
			t.Errorf("asynq's own client does not see the lock: %v", err)
		}
	})
}

type asynqer struct{ *asynq.Client }

func asynqClient(rdb redis.UniversalClient) asynqer {
	return asynqer{asynq.NewClientFromRedisClient(rdb)}
}

func (a asynqer) enqueue(queue, payload string) error {
	_, err := a.Enqueue(asynq.NewTask("test.note", []byte(payload)), asynq.Queue(queue), asynq.Unique(time.Minute))
	return err
}

// Confirm is an answer about replicas: without one, or with one that does not answer, the job is unconfirmed.
func TestConfirm(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c, err := rediscluster.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := fresh("confirm")
	j := newJobs(t, client(t, c.Addrs()), nil, Queue{Name: q})
	if _, err := j.Enqueue(ctx, note{N: 1}, Confirm(1), ID("first")); err != nil {
		t.Fatal(err)
	}
	master, err := c.MasterFor(ctx, asynqKey(q, "pending"))
	if err != nil {
		t.Fatal(err)
	}
	replica, err := c.ReplicaOf(ctx, master)
	if err != nil {
		t.Fatal(err)
	}
	replica.Freeze()
	_, err = j.Enqueue(ctx, note{N: 2}, Confirm(1), ID("second"))
	doubt, ok := asUnconfirmed(err)
	if !ok || doubt.ID != "second" || !strings.Contains(fmt.Sprint(err), "0 replicas") {
		t.Errorf("with a replica that hangs: %v", err)
	}
	if _, err := j.Enqueue(ctx, note{N: 3}); err != nil {
		t.Errorf("without Confirm: %v", err)
	}
	replica.Thaw()
	eventually(t, 10*time.Second, "the same ID is told to be there", func() bool {
		_, err := j.Enqueue(ctx, note{N: 2}, Confirm(1), ID("second"))
		return errors.Is(err, ErrExists)
	})
	if s := status(t, j, q); s.Waiting != 3 {
		t.Errorf("%d jobs, want 3", s.Waiting)
	}
	alone := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	if _, err := alone.Enqueue(ctx, note{}, Confirm(1)); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("a server without replicas: %v", err)
	}
	if _, err := alone.Enqueue(ctx, note{}, Confirm(9)); err == nil || errors.Is(err, ErrUnconfirmed) {
		t.Errorf("nine replicas: %v", err)
	}
}

// A job with a drawn ID that is stored once more, because the first answer was lost, is found to be there; for anybody else its ID is taken.
func TestDrawnIDIsKnownAgain(t *testing.T) {
	t.Parallel()
	q := fresh("drawn")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	e, _, err := j.prepare(t.Context(), note{N: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		infos := make([]Info, 1)
		j.store(t.Context(), []*envelope{e}, infos, 1)
		if infos[0].Err != nil {
			t.Error(infos[0].Err)
		}
	}
	if _, err := j.Enqueue(t.Context(), note{N: 1}, ID(e.ID)); !errors.Is(err, ErrExists) {
		t.Errorf("another job with its ID: %v", err)
	}
	if s := status(t, j, q); s.Waiting != 1 {
		t.Errorf("%d jobs are stored, want 1", s.Waiting)
	}
}

// Redis does as much for a job as for one that asynq stores.
func TestEnqueueTakesNoMoreCommandsThanAsynq(t *testing.T) {
	t.Parallel()
	server := alone(t)
	rdb, q := client(t, server.Addrs()), fresh("commands")
	j, bare := newJobs(t, rdb, nil, Queue{Name: q}), asynqClient(rdb)
	defer bare.Close()
	const n = 100
	taken := func(store func() error) (commands int) {
		t.Helper()
		for i := range n + 1 {
			if i == 1 { // the script is known, and the queue
				if err := rdb.ConfigResetStat(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
			}
			if err := store(); err != nil {
				t.Fatal(err)
			}
		}
		for line := range strings.Lines(rdb.Info(t.Context(), "commandstats").Val()) {
			var calls int
			if _, after, ok := strings.Cut(line, ":"); ok {
				_, _ = fmt.Sscanf(after, "calls=%d", &calls)
			}
			commands += calls
		}
		return commands
	}
	theirs := taken(func() error {
		_, err := bare.EnqueueContext(t.Context(), asynq.NewTask("test.note", []byte(`{"n":1}`)), asynq.Queue(q))
		return err
	})
	ours := taken(func() error { _, err := j.Enqueue(t.Context(), note{N: 1}); return err })
	if theirs < 4*n || ours > theirs+n/10 { // a queue is announced again after a while
		t.Errorf("%d jobs took %d commands, asynq's %d", n, ours, theirs)
	}
}

// routed names its own queue.
type routed struct {
	N  int    `json:"n"`
	To string `json:"-"`
}

func (routed) Kind() string    { return "test.routed" }
func (r routed) Queue() string { return r.To }

// Jobs of several queues in one call get each to its own, in their order.
func TestEnqueueManyToSeveralQueues(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		names := []string{fresh("c"), fresh("a"), fresh("b")}
		j := newJobs(t, rdb, nil, Queue{Name: names[0]}, Queue{Name: names[1]}, Queue{Name: names[2]})
		var jobs []Job
		for n := range 30 {
			jobs = append(jobs, routed{n, names[n%3]})
		}
		infos, err := j.EnqueueMany(t.Context(), jobs)
		if err != nil {
			t.Fatal(err)
		}
		for at, name := range names {
			var want []string
			for n := at; n < len(jobs); n += 3 {
				if infos[n].Queue != name {
					t.Errorf("job %d is said to be in %s", n, infos[n].Queue)
				}
				want = append([]string{infos[n].ID}, want...) // the head is at the end
			}
			if got := pendingIDs(t, rdb, name); !slices.Equal(got, want) {
				t.Errorf("%s has %v, want %v", name, got, want)
			}
		}
	})
}

// hostAhead is a client on a host whose clock is an hour ahead of Redis's: what it calls now is in an hour.
type hostAhead struct{ redis.UniversalClient }

func (h hostAhead) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if sha == storeScript.Hash() {
		args = slices.Clone(args)
		for i, arg := range args {
			if due, err := strconv.ParseFloat(fmt.Sprint(arg), 64); err == nil && i == len(args)-1 {
				args[i] = strconv.FormatFloat(due+3600, 'f', 6, 64)
			}
		}
	}
	return h.UniversalClient.EvalSha(ctx, sha, keys, args...)
}

// Whether a job's time has come is told by Redis's clock, not by that of the host which stores it.
func TestDelayedJobOfAHostWhoseClockIsAhead(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	q := fresh("ahead")
	if err := storeScript.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	j := newJobs(t, hostAhead{rdb}, nil, Queue{Name: q})
	enqueue(t, j, q, 1, At(time.Now().Add(-30*time.Minute))) // by Redis's clock that is in half an hour
	if s := status(t, j, q); s.Delayed != 1 || s.Waiting != 0 {
		t.Errorf("a job whose time comes in half an hour: %d are delayed and %d wait", s.Delayed, s.Waiting)
	}
	enqueue(t, j, q, 1, At(time.Now().Add(-2*time.Hour)))
	if s := status(t, j, q); s.Delayed != 1 || s.Waiting != 1 {
		t.Errorf("a job whose time was an hour ago: %d are delayed and %d wait", s.Delayed, s.Waiting)
	}
}

// A job whose time is now does not wait until delayed jobs are looked at again.
func TestJobForNowIsNotDelayed(t *testing.T) {
	t.Parallel()
	q := fresh("now")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	for range 50 {
		enqueue(t, j, q, 1, At(time.Now()))
	}
	if s := status(t, j, q); s.Delayed != 0 || s.Waiting != 50 {
		t.Errorf("%d are delayed and %d wait", s.Delayed, s.Waiting)
	}
}
