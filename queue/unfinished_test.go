package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/admin"
)

// told is what an operation's caller hears.
type told struct {
	admin.Problem

	retryAfter string
}

// over calls an operation of a queue over HTTP.
func over(t *testing.T, j *Jobs, timeout time.Duration, path, body string) told {
	t.Helper()
	handler, err := admin.New(j.Operations(), &admin.Options{AllowInsecureLoopback: true, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	resp := send(t, server, http.MethodPost, jobsPath+"/"+path, body)
	defer resp.Body.Close()
	got := told{retryAfter: resp.Header.Get("Retry-After")}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	got.Status = resp.StatusCode
	return got
}

// Who calls for something that goes in steps hears how many jobs it was done to when an answer of Redis's is lost, that more may be, and
// no word of trying again: what has come meanwhile is not meant.
func TestLostStepIsToldOverHTTP(t *testing.T) {
	t.Parallel()
	const n = 2*step + 5
	for name, verb := range map[string]struct {
		script *redis.Script
		state  State
		path   string
		done   string
	}{
		"purge":  {purgeScript, Waiting, "drain?mode=discard&confirm=true", "500 jobs are discarded"},
		"park":   {moveScript, Waiting, "drain", "500 jobs are parked"},
		"resume": {moveScript, Parked, "resume", "500 jobs are resumed"},
		"retry":  {retryScript, Failed, "retry-failed", "500 jobs are retried"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBothCut(t, verb.script.Hash(), func(t *testing.T, plain redis.UniversalClient, rdb *cut) {
				q := fresh("told")
				direct := newJobs(t, plain, nil, Queue{Name: q})
				left := func() int {
					s := status(t, direct, q)
					return map[State]int{Waiting: s.Waiting, Parked: s.Parked, Failed: s.Failed}[verb.state]
				}
				switch verb.state {
				case Failed:
					failedJobs(t, plain, q, n)
				default:
					fill(t, direct, q, n)
				}
				if verb.state == Parked {
					if _, err := direct.Park(t.Context(), q); err != nil {
						t.Fatal(err)
					}
				}
				rdb.sent.Store(-1) // the second step's is lost
				rdb.armed.Store(true)
				got := over(t, newJobs(t, rdb.UniversalClient, nil, Queue{Name: q}), 0, q+"/"+verb.path, "")
				if got.Status != http.StatusServiceUnavailable || left() != n-2*step {
					t.Errorf("%d, %q, %d are left, want %d", got.Status, got.Detail, left(), n-2*step)
				}
				if !strings.Contains(got.Detail, verb.done) || !strings.Contains(got.Detail, "up to 500 more may be") ||
					strings.Contains(got.Detail, "try again") || got.retryAfter != "" {
					t.Errorf("it says %q, to be tried again after %q", got.Detail, got.retryAfter)
				}
			})
		})
	}
}

// Where Redis refuses a step, the caller hears how many jobs the ones before it were done to, and that there are no more.
func TestRefusedStepIsToldOverHTTP(t *testing.T) {
	t.Parallel()
	server := alone(t)
	rdb, q := client(t, server.Addrs()), fresh("refused")
	for i := range step {
		rdb.LPush(t.Context(), asynqKey(q, "pending"), fmt.Sprint("ok", i))
	}
	rdb.LPush(t.Context(), asynqKey(q, "pending"), "no")
	j := newJobs(t, limited(t, server.Addrs()[0]), nil, Queue{Name: q})
	got := over(t, j, 0, q+"/drain?mode=discard&confirm=true", "")
	if got.Status != http.StatusServiceUnavailable || !strings.Contains(got.Detail, "500 jobs are discarded, and no more") || got.retryAfter == "" {
		t.Errorf("%d, %q, to be tried again after %q", got.Status, got.Detail, got.retryAfter)
	}
	if left := pendingIDs(t, rdb, q); len(left) != 1 {
		t.Errorf("%d are left", len(left))
	}
}

// A queue whose parked jobs do not come back, as Redis is full, may be open again.
func TestResumeOnAFullRedisIsToldOverHTTP(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, alone(t).Addrs()), fresh("full")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 2)
	if _, err := j.Park(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Pause(t.Context(), q, nil); err != nil {
		t.Fatal(err)
	}
	defer full(t, rdb)()
	got := over(t, j, 0, q+"/resume", "")
	if got.Status != http.StatusServiceUnavailable || !strings.Contains(got.Detail, "0 jobs are resumed, and no more; the queue may be paused and closed no more") {
		t.Errorf("%d, %q", got.Status, got.Detail)
	}
	if s := status(t, j, q); s.Paused || s.Parked != 2 {
		t.Errorf("%+v, the test is out of date", s)
	}
}

// mute is a server that does what has a word in it, and does not answer that.
type mute struct {
	redis.Hook
	word  string
	until func(ctx context.Context) error // when its client gives up, and of what
}

func (m mute) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m mute) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if err == nil && strings.Contains(fmt.Sprint(cmd.Args()...), m.word) {
			err = io.EOF
			if m.until != nil {
				err = m.until(ctx)
			}
			cmd.SetErr(err)
		}
		return err
	}
}

func (m mute) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// Who calls for something that is done at once hears that it may be when Redis's answer is lost.
func TestLostAnswerIsToldOverHTTP(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for name, c := range map[string]struct {
		script           *redis.Script
		path, body, done string
	}{
		"pause":    {holdScript, "pause", "", "paused"},
		"close":    {holdScript, "close", "", "closed"},
		"finish":   {holdScript, "drain?mode=finish", "", "closed"},
		"limits":   {storeLimitsScript, "limits", `{"max":1,"per_seconds":1}`, "limited"},
		"throttle": {throttleScript, "throttle", `{"seconds":60}`, "throttled"},
	} {
		q := fresh("mute")
		direct := newJobs(t, rdb, nil, Queue{Name: q})
		deaf := client(t, single.Get(t).Addrs())
		if err := c.script.Load(t.Context(), rdb).Err(); err != nil {
			t.Fatal(err)
		}
		deaf.AddHook(mute{word: c.script.Hash()})
		got := over(t, newJobs(t, deaf, nil, Queue{Name: q}), 0, q+"/"+c.path, c.body)
		if got.Status != http.StatusServiceUnavailable || !strings.Contains(got.Detail, "may be "+c.done) {
			t.Errorf("%s: %d, %q", name, got.Status, got.Detail)
		}
		s := status(t, direct, q)
		if !s.Paused && s.Closed == nil && s.RateLimit == nil && s.ThrottledSeconds == nil {
			t.Errorf("%s: it was not done, the test is out of date", name)
		}
	}
}

// An operation that the listener's time ends is a 504, which says that part of it may be done, wherever it was then; also where a
// connection says that time is up.
func TestOperationThatRunsOutOfTimeIs504(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, single.Get(t).Addrs()), fresh("late")
	if err := purgeScript.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	enqueue(t, newJobs(t, rdb, nil, Queue{Name: q}), q, 3)
	silent := client(t, single.Get(t).Addrs())
	silent.AddHook(mute{word: purgeScript.Hash(), until: func(ctx context.Context) error { <-ctx.Done(); return os.ErrDeadlineExceeded }})
	j := newJobs(t, silent, nil, Queue{Name: q})
	got := over(t, j, 2*time.Second, q+"/drain?mode=discard&confirm=true", "")
	if s := status(t, j, q); got.Status != http.StatusGatewayTimeout || !strings.Contains(got.Detail, "part of it may be done") || s.Waiting != 0 {
		t.Errorf("%d, %q, %d wait", got.Status, got.Detail, s.Waiting)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	for _, op := range j.Operations() {
		req := httptest.NewRequest(op.Method, "/", nil)
		req.SetPathValue("queue", q)
		req.SetPathValue("id", "x")
		if reply, err := op.Do(late, &admin.Call{Actor: "test", Request: req}); !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*admin.Problem)) {
			t.Errorf("%s: %+v, %v", op.ID, reply, err)
		}
	}
}
