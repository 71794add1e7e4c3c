package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

// TestRunbookCommands sends what the runbook's curls send to the real listener.
func TestRunbookCommands(t *testing.T) {
	t.Parallel()
	own, err := rediscluster.Start(t.Context(), nil) // other tests move slots, of which not all queues can be listed then
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	rdb := client(t, own.Addrs())
	low := Queue{Name: "low-priority", Rate: Rate{Max: 10, Per: time.Second}}
	j := newJobs(t, rdb, nil, low, Queue{Name: "lead-processing"})
	enqueue(t, j, low.Name, 3)
	handler, err := admin.New(j.Operations(), &admin.Options{AllowInsecureLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	for _, c := range []struct {
		method, path string
		status       int
		contains     string
	}{
		{"GET", "/jobs", 200, `"queue":"lead-processing"`},
		{"GET", "/jobs/low-priority", 200, `"waiting":3`},
		{"POST", "/jobs/low-priority/pause", 200, `"changed":true`},
		{"POST", "/jobs/low-priority/pause", 200, `"changed":false`},
		{"POST", "/jobs/low-priority/drain?dry_run=true", 200, `"count":3`},
		{"POST", "/jobs/low-priority/drain?mode=discard", 400, `confirm`},
		{"POST", "/jobs/low-priority/drain?mode=park", 200, `"done":"parked"`},
		{"GET", "/jobs/low-priority", 200, `"parked":3`},
		{"POST", "/jobs/low-priority/resume", 200, `"count":3`},
		{"POST", "/jobs/lead-processing/retry-failed", 200, `"count":0`},
		{"POST", "/jobs/no-such-queue/pause", 404, `no-such-queue`},
		{"GET", "/jobs/%7Blow%7D", 404, `unknown queue`},
		{"GET", "/jobs/low-priority/pause", 405, ``},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+"/api/v1/performance"+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(body), `": `, `":`)
		if resp.StatusCode != c.status || !strings.Contains(text, c.contains) {
			t.Errorf("%s %s = %d %s; want %d with %s", c.method, c.path, resp.StatusCode, body, c.status, c.contains)
		}
	}
}

// listing calls the operation that lists queues.
func listing(t *testing.T, j *Jobs) (Listed, error) {
	t.Helper()
	ops := j.Operations()
	list := ops[slices.IndexFunc(ops, func(op admin.Operation) bool { return op.ID == "queue.list" })]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	reply, err := list.Do(ctx, &admin.Call{Actor: "test"})
	listed, _ := reply.(Listed)
	return listed, err
}

// One queue that cannot be read is named, and the others are listed: also while its slot moves to another master.
func TestListTellsWhichQueueItCannotRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, rdb redis.UniversalClient, q string) (undo func())
	}{
		{"of another type", func(t *testing.T, rdb redis.UniversalClient, q string) func() {
			if err := rdb.Set(t.Context(), asynqKey(q, "pending"), "x", 0).Err(); err != nil {
				t.Fatal(err)
			}
			return func() {}
		}},
		{"while its slot moves", func(t *testing.T, rdb redis.UniversalClient, q string) func() {
			enqueue(t, newJobs(t, rdb, nil, Queue{Name: q}), q, 1)
			return moving(t, rdb, q)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rdb := client(t, cluster.Get(t).Addrs())
			good, bad := fresh("good"), fresh("bad")
			j := newJobs(t, rdb, nil, Queue{Name: bad}, Queue{Name: good})
			enqueue(t, j, good, 3)
			defer c.spoil(t, rdb, bad)()
			listed, err := listing(t, j)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(listed.Queues, func(s *Status) bool { return s.Queue == good && s.Waiting == 3 }) {
				t.Errorf("the other queue is not listed: %+v", listed.Queues)
			}
			if !slices.ContainsFunc(listed.Unread, func(u Unread) bool { return u.Queue == bad && strings.Contains(u.Error, "the log has the cause") }) ||
				slices.ContainsFunc(listed.Queues, func(s *Status) bool { return s.Queue == bad }) {
				t.Errorf("unread are %+v", listed.Unread)
			}
		})
	}
}

// hangs is a server that does not answer what is asked of the queues whose names hold a word: until released is closed, or, without
// that, for as long as it is waited for.
type hangs struct {
	redis.Hook
	word     string
	released <-chan struct{}
}

func (h hangs) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h hangs) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		switch {
		case !strings.Contains(fmt.Sprint(cmd.Args()...), h.word):
		case h.released != nil:
			<-h.released
		default:
			<-ctx.Done()
			return ctx.Err()
		}
		return next(ctx, cmd)
	}
}

func (h hangs) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// However many queues a silent master has, the others are listed, and the log has the cause for each.
func TestListBesideManyQueuesThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	good, word := fresh("good"), fresh("hang")
	rdb.AddHook(hangs{word: word})
	var queues []Queue
	for i := range 40 {
		queues = append(queues, Queue{Name: fmt.Sprint(word, "-", i)})
	}
	var log bytes.Buffer
	j := newJobs(t, rdb, &Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, append(queues, Queue{Name: good})...)
	listed, err := listing(t, j)
	if err != nil || !slices.ContainsFunc(listed.Queues, func(s *Status) bool { return s.Queue == good }) {
		t.Fatalf("the queue that answers is not listed: %+v, %v", listed.Queues, err)
	}
	for _, q := range queues {
		if !slices.ContainsFunc(listed.Unread, func(u Unread) bool { return u.Queue == q.Name }) {
			t.Errorf("%s is not named", q.Name)
		}
		if !strings.Contains(log.String(), `\"`+q.Name+`\"`) {
			t.Errorf("the log has nothing of %s", q.Name)
		}
	}
}

// crowd counts how many questions about the queues whose names hold a word are under way, and holds them until released is closed.
type crowd struct {
	hangs
	mu        sync.Mutex
	now, most int
}

func (c *crowd) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	next = c.hangs.ProcessHook(next)
	add := func(n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now += n
		c.most = max(c.most, c.now)
	}
	return func(ctx context.Context, cmd redis.Cmder) error {
		if strings.Contains(fmt.Sprint(cmd.Args()...), c.word) {
			add(1)
			defer add(-1)
		}
		return next(ctx, cmd)
	}
}

func (c *crowd) seen() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most
}

// Of thousands of queues no more are asked at once than can be answered, and those that come later have as long as the first.
func TestListOfManyQueuesAsksSomeAtATime(t *testing.T) {
	t.Parallel()
	rdb, word := client(t, single.Get(t).Addrs()), fresh("many")
	released := make(chan struct{})
	c := &crowd{hangs: hangs{word: word, released: released}}
	rdb.AddHook(c)
	queues := make([]Queue, 2*askAtOnce+40)
	for i := range queues {
		queues[i].Name = fmt.Sprint(word, "-", i)
	}
	j := newJobs(t, rdb, nil, queues...)
	var listed Listed
	var err error
	var asking sync.WaitGroup
	asking.Go(func() { listed, err = listing(t, j) })
	eventually(t, 10*time.Second, "a group of queues is asked", func() bool { return c.seen() >= askAtOnce })
	close(released)
	asking.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if n := c.seen(); n != askAtOnce {
		t.Errorf("%d were asked at once, want %d", n, askAtOnce)
	}
	for _, q := range queues[2*askAtOnce:] {
		if !slices.ContainsFunc(listed.Queues, func(s *Status) bool { return s.Queue == q.Name }) {
			t.Errorf("%s is not listed", q.Name)
		}
	}
}

// With no queue to read, the list is an error, not an empty one.
func TestListWithoutRedisIsAnError(t *testing.T) {
	t.Parallel()
	server := alone(t)
	rdb, q := client(t, server.Addrs()), fresh("gone")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1)
	if err := rdb.Set(t.Context(), asynqKey(q, "active"), "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if listed, err := listing(t, j); err == nil || !strings.Contains(err.Error(), "Redis does not answer as expected") {
		t.Errorf("%+v, %v", listed, err)
	}
}

// listedThen calls a function after the queues are listed.
type listedThen struct {
	redis.UniversalClient
	then func()
}

func (l *listedThen) SMembers(ctx context.Context, key string) *redis.StringSliceCmd {
	defer l.then()
	return l.UniversalClient.SMembers(ctx, key)
}

// With no queue to read the list is an error of Redis's, also when another one was deleted meanwhile.
func TestListWithoutRedisBesideADeletedQueue(t *testing.T) {
	t.Parallel()
	rdb, bad, deleted := client(t, alone(t).Addrs()), fresh("bad"), fresh("deleted")
	if err := errors.Join(rdb.SAdd(t.Context(), allQueues, deleted).Err(), rdb.Set(t.Context(), asynqKey(bad, "active"), "x", 0).Err()); err != nil {
		t.Fatal(err)
	}
	j := newJobs(t, &listedThen{rdb, func() { rdb.SRem(t.Context(), allQueues, deleted) }}, nil, Queue{Name: bad})
	reply, err := listing(t, j)
	if p, ok := errors.AsType[*admin.Problem](err); !ok || p.Status != http.StatusServiceUnavailable {
		t.Errorf("%+v, %v", reply, err)
	}
}

// A job whose key is something else has no age, and hides no depth.
func TestDepthBesideAKeyThatIsNoJob(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, single.Get(t).Addrs()), fresh("no-age")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 2)
	ids := pendingIDs(t, rdb, q)
	if err := rdb.Set(t.Context(), taskPrefix(q)+ids[len(ids)-1], "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if s := status(t, j, q); s.Waiting != 2 || s.OldestSeconds != nil {
		t.Errorf("%d wait, the oldest for %v", s.Waiting, s.OldestSeconds)
	}
	if err := j.sample(t.Context(), q); err != nil {
		t.Error(err)
	}
	if in, _, err := j.readQueue(t.Context(), q); err != nil || in.Due != 2 || in.OldestSeconds != nil {
		t.Errorf("scaling reads %+v, %v", in, err)
	}
	if x, err := j.Explain(t.Context(), q, ids[0]); err != nil || x.State != "waiting" {
		t.Errorf("the other job is %+v, %v", x, err)
	}
}

// Over HTTP a throttle holds a queue back until 0 ends it, and a job says so.
func TestThrottleOverHTTP(t *testing.T) {
	t.Parallel()
	q := fresh("throttle")
	j := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	enqueue(t, j, q, 1, ID("held"))
	run := func(id string, body any, dry bool) (any, error) {
		t.Helper()
		for _, op := range j.Operations() {
			if op.ID == id {
				req := httptest.NewRequest(op.Method, "/", nil)
				req.SetPathValue("queue", q)
				req.SetPathValue("id", "held")
				return op.Do(t.Context(), &admin.Call{Actor: "test", DryRun: dry, Request: req, Body: body})
			}
		}
		t.Fatalf("there is no operation %s", id)
		return nil, nil
	}
	for _, c := range []struct {
		seconds float64
		dry     bool
		held    bool
	}{{3600, true, false}, {3600, false, true}, {0, false, false}} {
		reply, err := run("queue.throttle", &ThrottleRequest{Seconds: c.seconds}, c.dry)
		if changed, ok := reply.(*Changed); !ok || err != nil || changed.Done != "throttled" {
			t.Errorf("%+v: %+v, %v", c, reply, err)
		}
		reply, err = run("queue.explain", nil, false)
		if x, ok := reply.(*Explanation); !ok || err != nil || x.ID != "held" || strings.Contains(x.Why, "throttled") != c.held {
			t.Errorf("%+v: it is said %+v, %v", c, reply, err)
		}
	}
	for _, wrong := range []float64{-1, 86401} {
		if reply, err := run("queue.throttle", &ThrottleRequest{Seconds: wrong}, false); err == nil {
			t.Errorf("%v seconds: %+v, want a refusal", wrong, reply)
		}
	}
}

// Over HTTP a paced retry of what has failed answers at once and goes on by itself, no faster than its pace, once for each queue. It
// ends with the process, and another one goes on with what is left.
func TestPacedRetryOverHTTP(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, single.Get(t).Addrs()), fresh("paced")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	const n = 12
	for i := range n {
		fail(t, rdb, q, fmt.Sprintf("id%02d", i), "test.note", time.Unix(1_800_000_000, 0))
	}
	left := func() int64 { return rdb.ZCard(t.Context(), asynqKey(q, "archived")).Val() }
	process := func() (post func(body string) (int, admin.Started), ask func(admin.Started) (state string, count int), stop func()) {
		handler, err := admin.New(j.Operations(), &admin.Options{AllowInsecureLoopback: true})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		call := func(method, path, body string, reply any) int {
			t.Helper()
			resp := send(t, server, method, path, body)
			defer resp.Body.Close()
			if resp.StatusCode >= 300 {
				return resp.StatusCode
			}
			if err := json.NewDecoder(resp.Body).Decode(reply); err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode
		}
		post = func(body string) (code int, begun admin.Started) {
			code = call("POST", "/api/v1/performance/jobs/"+q+"/retry-failed", body, &begun)
			return code, begun
		}
		ask = func(begun admin.Started) (string, int) {
			var status struct {
				State  string
				Result Changed
			}
			call("GET", begun.Status, "", &status)
			return status.State, status.Result.Count
		}
		if code, _ := post(`{"per_second":1}`); code != http.StatusServiceUnavailable || left() == 0 {
			t.Errorf("before Run: %d, want 503", code)
		}
		return post, ask, start(t, handler)
	}
	accepted := func(post func(string) (int, admin.Started), body string) (begun admin.Started) {
		t.Helper()
		eventually(t, 10*time.Second, "it is accepted", func() bool { // Run may not have begun yet
			var code int
			code, begun = post(body)
			return code == http.StatusAccepted
		})
		return begun
	}

	post, ask, stop := process()
	slow := accepted(post, `{"per_second":0.001}`) // it would take hours
	eventually(t, 10*time.Second, "one is back", func() bool { return left() == n-1 })
	if again := accepted(post, `{"per_second":1000}`); again != slow {
		t.Errorf("another one began beside it: %+v", again)
	}
	if state, _ := ask(slow); state != "running" || left() != n-1 {
		t.Errorf("it is %s, and %d are left", state, left())
	}
	stop()
	if state, _ := ask(slow); state != "failed" || left() != n-1 {
		t.Errorf("when its process has ended it is %s, and %d are left", state, left())
	}

	post, ask, _ = process()
	const pace = 20 // so there are steps of two
	began := time.Now()
	rest := accepted(post, fmt.Sprintf(`{"per_second":%d}`, pace))
	eventually(t, 10*time.Second, "it is done", func() bool { state, _ := ask(rest); return state == "done" })
	if _, count := ask(rest); count != n-1 || left() != 0 {
		t.Errorf("%d are back, want %d; %d are left", count, n-1, left())
	}
	for i := range n - 1 {
		since, err := rdb.HGet(t.Context(), fmt.Sprintf("%sid%02d", taskPrefix(q), i+1), "pending_since").Int64()
		due := began.Add(time.Duration(i/2*2) * time.Second / pace)
		if at := time.Unix(0, since); err != nil || at.Before(due) {
			t.Errorf("job %d of the second call was back %v, %v after it, want %v at least", i, at.Sub(began), err, due.Sub(began))
		}
	}
}

// send makes a request, with a body that is JSON, or none.
func send(t *testing.T, server *httptest.Server, method, path, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
