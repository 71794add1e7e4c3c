package queue

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// reader is a Redis client that answers every script with one stored job, so that asynq decodes it.
type reader struct {
	redis.UniversalClient
	msg string
}

func (r reader) SIsMember(ctx context.Context, _ string, _ any) *redis.BoolCmd {
	return redis.NewBoolResult(true, nil)
}

func (r reader) EvalSha(ctx context.Context, _ string, _ []string, _ ...any) *redis.Cmd {
	return redis.NewCmdResult([]any{r.msg, "active", int64(0), ""}, nil)
}

func readByAsynq(msg string) (*asynq.TaskInfo, error) {
	return asynq.NewInspectorFromRedisClient(reader{msg: msg}).GetTaskInfo("q", "id")
}

// What is encoded here is what asynq's own client would have stored, and reads as the job that it was.
func TestMessagesAreAsynqs(t *testing.T) {
	t.Parallel()
	n := newEncoder(nil)
	if !n.agrees() {
		t.Fatal("asynq's version encodes in another way: each job is encoded by asynq, which is slow")
	}
	retries := 1000
	for _, e := range []*envelope{
		{Kind: "k", settings: settings{ID: "id", Queue: "q", MaxRetry: new(int)}},
		{Kind: strings.Repeat("k", 128), Payload: []byte(strings.Repeat("\xff\x00", 100_000)), settings: settings{
			ID: strings.Repeat("i", 128), Queue: "q", MaxRetry: &retries, Timeout: 24 * time.Hour, Retention: 1000 * time.Hour, Unique: time.Hour,
			Headers: map[string]string{"a": strings.Repeat("ä", 2000)},
		}},
		{Kind: "k", Payload: []byte{}, settings: settings{ID: "id", Queue: "q", Unique: time.Hour, Headers: map[string]string{"empty": ""}}},
	} {
		ours, err := e.store()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := n.ask(e)
		if err != nil {
			t.Fatal(err)
		}
		if string(ours.msg) != string(theirs.msg) || ours.lock != theirs.lock || ours.lockFor.Round(time.Second) != theirs.lockFor.Round(time.Second) {
			t.Errorf("job %.10q is %.200q under lock %q, and asynq's %.200q under %q", e.Kind, ours.msg, ours.lock, theirs.msg, theirs.lock)
		}
		read, err := readByAsynq(string(ours.msg))
		if err != nil {
			t.Fatal(err)
		}
		want := len(e.Headers)
		if read.ID != e.ID || read.Type != e.Kind || len(read.Headers) != want || cmp.Diff(read.Headers, e.Headers) != "" && want > 0 {
			t.Errorf("it reads as %+v", read)
		}
		if why := unreadable(string(ours.msg), e.ID, e.Queue); why != "" {
			t.Errorf("it is unreadable: %s", why)
		}
	}
	bad := &envelope{Kind: "k", settings: settings{ID: "id", Queue: "q", Headers: map[string]string{"a": "\xff"}}}
	if _, err := bad.store(); err == nil {
		t.Error("a header that is not UTF-8 was encoded, asynq could not read it")
	}
}

// otherAsynq stores what the asynq at hand does not.
type otherAsynq struct{ onlooker }

func (o otherAsynq) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	for i, arg := range args {
		if msg, ok := arg.([]byte); ok {
			args[i] = append([]byte("another form of "), msg...)
		}
	}
	return o.onlooker.EvalSha(ctx, sha, keys, args...)
}

// A version of asynq that encodes in another way is found out, and left to do so.
func TestOtherMessagesAreLeftToAsynq(t *testing.T) {
	t.Parallel()
	n := newEncoder(nil)
	n.client = asynq.NewClientFromRedisClient(otherAsynq{})
	s, err := n.encode(&envelope{Kind: "k", settings: settings{ID: "id", Queue: "q", Unique: time.Hour}})
	if err != nil || !strings.HasPrefix(string(s.msg), "another form of ") || s.lock == "" {
		t.Errorf("%+v, %v", s, err)
	}
}

// Whatever asynq cannot decode is found out before asynq has it.
func FuzzMessage(f *testing.F) {
	good, err := (&envelope{Kind: "k", Payload: []byte("{}"), settings: settings{ID: "id", Queue: "q", Retention: time.Hour, Headers: map[string]string{"a": "b"}}}).store()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.msg)
	f.Add(append(good.msg, failedWith(time.Now(), "no")...))
	f.Add(append(good.msg, "\x30\x00"...))
	for _, text := range []string{"", "rubbish", "\x0a\xff\xff\xff\xff\x0f", "\x1a\x02id\x22\x01q\x0a\x01\xff", "\x1a\x02id\x22\x01q\x7a\x03\x0a\x01\xff", "\x1a\x02id\x22\x01q\x7b\x7c", "\x1a\x02id\x22\x01q\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", "\x1a\x02id\x22\x01q\x2d1234\x29"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		info, err := readByAsynq(string(msg))
		why := unreadable(string(msg), "id", "q")
		if why == "" && (err != nil || info.ID != "id" || info.Queue != "q") {
			t.Errorf("%q passes, and asynq makes of it %+v, %v", msg, info, err)
		}
	})
}

// Jobs that asynq cannot read have failed at once, with the reason and what was stored, and no slot waits for them.
func TestUnreadableJobsFailAtOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("unreadable")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 1) // makes the queue known
		ctx := t.Context()
		elsewhere := message{kind: note{}.Kind(), payload: []byte(`{"n":1}`), id: "elsewhere", queue: "other"}
		jobs := map[string]string{
			"rubbish": "rubbish", "empty": "", "cut": "\x0a\xff\xff\xff\xff\x0f", "other": string((&message{kind: note{}.Kind(), id: "rubbish", queue: q}).encode()), "elsewhere": string(elsewhere.encode()),
		}
		for id, msg := range jobs {
			if err := errors.Join(rdb.HSet(ctx, taskPrefix(q)+id, "msg", msg, "state", "pending").Err(), rdb.LPush(ctx, asynqKey(q, "pending"), id).Err()); err != nil {
				t.Fatal(err)
			}
		}
		var told, ran atomic.Int64
		w := newWorker(t, j, &WorkerOptions{Concurrency: 2, MaxConcurrency: 2, OnDead: func(_ context.Context, d DeadJob) {
			if d.Kind == kindUnreadable && string(d.Payload) == jobs[d.ID] {
				told.Add(1)
			}
		}})
		Handle(w, func(context.Context, note) error { ran.Add(1); return nil })
		stop := start(t, w)
		for range 2 { // and again when they get fresh attempts
			eventually(t, 5*time.Second, "all have failed and no slot is taken", func() bool {
				s := status(t, j, q)
				return s.Failed == len(jobs) && s.Waiting+s.Active+s.Retrying == 0 && w.Busy() == 0
			})
			for id := range jobs {
				x, err := j.Explain(ctx, q, id)
				if err != nil || x.State != "failed" || !strings.Contains(x.Error, "cannot read it") {
					t.Errorf("Explain of %s: %+v, %v", id, x, err)
				}
			}
			if n, err := j.RetryFailed(ctx, q, nil); n != len(jobs) || err != nil {
				t.Fatalf("RetryFailed: %d, %v", n, err)
			}
		}
		eventually(t, 5*time.Second, "all have failed once more", func() bool { return status(t, j, q).Failed == len(jobs) })
		stop()
		if told.Load() < int64(len(jobs)) || ran.Load() != 1 {
			t.Errorf("OnDead was told of %d, %d jobs ran", told.Load(), ran.Load())
		}
		list, err := asynq.NewInspectorFromRedisClient(rdb).ListArchivedTasks(q)
		if err != nil || len(list) != len(jobs) {
			t.Errorf("asynq's tools see %d failed jobs, %v", len(list), err)
		}
	})
}

// OnDead hears of a job that cannot be read also when the answer to its end was lost.
func TestOnDeadHearsOfAnUnreadableJob(t *testing.T) {
	t.Parallel()
	onBothCut(t, "$7\r\narchive\r\n", func(t *testing.T, plain redis.UniversalClient, rdb *cut) {
		q := fresh("lost-aside")
		j := newJobs(t, rdb.UniversalClient, nil, Queue{Name: q})
		ctx := t.Context()
		if err := errors.Join(plain.HSet(ctx, taskPrefix(q)+"x", "msg", "rubbish", "state", "pending").Err(), plain.LPush(ctx, asynqKey(q, "pending"), "x").Err(),
			plain.SAdd(ctx, allQueues, q).Err()); err != nil {
			t.Fatal(err)
		}
		f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
		told := 0
		f.onDead = func(context.Context, DeadJob) { told++ }
		rdb.armed.Store(true)
		keys, args := fetching(q)
		f.refill(ctx, keys, args)
		if s := status(t, j, q); told != 1 || s.Failed != 1 || rdb.sent.Load() < 2 || len(f.ready) != 0 {
			t.Errorf("OnDead was told %d times, the end was sent %d times: %+v", told, rdb.sent.Load(), s)
		}
	})
}
