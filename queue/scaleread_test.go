package queue

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/admin"
)

// TestScaleInputs compares what is read with what was done.
func TestScaleInputs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, q := t.Context(), Queue{Name: fresh("inputs"), Rate: Rate{Max: 500, Per: 2 * time.Second}}
		shut := errors.New("shut")
		gate := &switchable{}
		j := newJobs(t, rdb, &Options{Gate: gate}, q)
		s := newScaler(j, ScaleRule{Queue: q.Name, Above: 1, Up: 1}, nil, ScaleOptions{}, time.Minute)
		read := func() ScaleInputs {
			t.Helper()
			in, _, err := j.readScale(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			return in
		}
		if in := read(); in.Due != 0 || in.Arrived != 0 || in.Workers != 0 || in.Runs != 0 || in.MaxStartsPerSecond != 250 || in.Paused || in.OldestSeconds == nil || time.Since(in.At).Abs() > time.Minute {
			t.Errorf("of an empty queue %+v", in)
		}
		// Without a worker nobody moves jobs whose time has come: they are due all the same.
		enqueue(t, j, q.Name, 20)
		enqueue(t, j, q.Name, 3, In(time.Hour))
		ids := rdb.ZRange(ctx, asynqKey(q.Name, "scheduled"), 0, 1).Val()
		rdb.ZAdd(ctx, asynqKey(q.Name, "scheduled"), redis.Z{Score: 1, Member: ids[0]}, redis.Z{Score: 2, Member: ids[1]})
		if in := read(); in.Due != 22 || in.Arrived != 22 {
			t.Errorf("of 22 due jobs %+v", in)
		}
		gate.refuse(shut)
		if in := read(); !in.Paused {
			t.Error("a queue whose jobs are held back by the gate is not paused")
		}
		gate.refuse(nil)

		rdb.HSet(ctx, crewKey(q.Name), "dead", "40 1000", "odd", "many")
		var stops []func()
		for _, slots := range []int{4, 6} {
			w := newWorker(t, j, &WorkerOptions{Concurrency: slots})
			Handle(w, func(ctx context.Context, job note) error {
				sleep(ctx, 50*time.Millisecond)
				return nil
			})
			stops = append(stops, start(t, w))
		}
		eventually(t, 15*time.Second, "both workers and the end of 22 jobs are known", func() bool {
			in := read()
			return in.Workers == 2 && in.Slots == 10 && in.Due == 0 && in.Active == 0 && in.Runs == 22
		})
		if in := read(); in.Arrived != 22 || in.RunSeconds < 0.045 || in.RunSeconds > 0.5 {
			t.Errorf("after 22 jobs of 50ms %+v", in)
		}
		if rdb.HExists(ctx, crewKey(q.Name), "dead").Val() || rdb.HExists(ctx, crewKey(q.Name), "odd").Val() {
			t.Error("a worker that has not been heard of is remembered")
		}
		stops[0]()
		if in := read(); in.Workers != 1 || in.Slots != 6 {
			t.Errorf("after a drain %+v", in)
		}
		if _, err := j.Pause(ctx, q.Name, nil); err != nil {
			t.Fatal(err)
		}
		if in := read(); !in.Paused {
			t.Error("a paused queue is not paused")
		}
	})
}

type switchable struct{ err error }

func (s *switchable) refuse(err error)                     { s.err = err }
func (s *switchable) AllowWrite(ctx context.Context) error { return s.err }

// TestParseScale reads what only a broken or newer writer leaves.
func TestParseScale(t *testing.T) {
	t.Parallel()
	good := func() []any {
		return []any{int64(1_800_000_000_000), int64(3), int64(2), int64(40), int64(0), int64(-1), int64(1), int64(10),
			"7", "6", "above", `{"decided":true,"workers":4}`, []any{"b10", "2", "done", "2", "b0", "1", "bx", "9", "b3", "x"}}
	}
	in, m, err := parseScale(good())
	if err != nil || in.Arrived != 45 || in.Runs != 3 || in.OldestSeconds != nil || m.generation != 7 || m.applied != 6 || m.state.Workers != 4 || m.reason != ReasonAbove {
		t.Errorf("%+v, %+v, %v", in, m, err)
	}
	odd := good()
	odd[11] = `{"decided":3}`
	if _, m, err := parseScale(odd); err != nil || m.state.Decided {
		t.Errorf("an unknown state: %+v, %v", m, err)
	}
	for i, value := range map[int]any{0: "x", 8: "x", 6: nil} {
		bad := good()
		bad[i] = value
		if _, _, err := parseScale(bad); err == nil {
			t.Errorf("value %d was accepted as %v", i, value)
		}
	}
	if _, _, err := parseScale(nil); err == nil {
		t.Error("nothing was accepted")
	}
}

// TestScalingOperation reads what KEDA reads and what people read.
func TestScalingOperation(t *testing.T) {
	t.Parallel()
	q := fresh("explain")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	fill(t, j, q, 11)
	j.rdb.RPopLPush(t.Context(), asynqKey(q, "pending"), asynqKey(q, "active"))
	handler, err := admin.New(j.Operations(), &admin.Options{AllowInsecureLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	get := func(path string) (int, map[string]any) {
		t.Helper()
		resp, err := http.Get(server.URL + jobsPath + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var reply map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, reply
	}
	if status, reply := get("/" + q + "/scaling"); status != 200 || reply["demand"] != 11.0 || reply["desired"] != nil || len(reply["decisions"].([]any)) != 0 {
		t.Errorf("before a decision: %d %v", status, reply)
	}
	s := newScaler(j, ScaleRule{Queue: q, Above: 9, Up: 5, Below: 3, Down: 2}, nil, ScaleOptions{DryRun: true}, time.Minute)
	if err := j.lookAfter(t.Context(), s, time.Now()); err != nil {
		t.Fatal(err)
	}
	status, reply := get("/" + q + "/scaling?limit=1")
	if status != 200 || reply["desired"] != 5.0 || reply["applied"] != false {
		t.Errorf("%d %v", status, reply)
	}
	text, _ := json.Marshal(reply["decisions"])
	for _, part := range []string{`"reason":"above"`, `"due":10`, `"active":1`, `"rule":{"above":9`, `"stages":{"asked":5`, `"dry_run":true`, `"previous":-1`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("the decision lacks %s: %s", part, text)
		}
	}
	for path, want := range map[string]int{"/no-such-queue/scaling": 404, "/" + q + "/scaling?limit=0": 400, "/" + q + "/scaling?limit=x": 400, "/" + q + "/scaling?limit=101": 400} {
		if status, reply := get(path); status != want {
			t.Errorf("%s: %d %v", path, status, reply)
		}
	}
}
