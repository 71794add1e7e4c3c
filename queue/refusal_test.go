package queue

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// full makes a server refuse every write that may need room, until the returned function is called.
func full(t *testing.T, rdb redis.UniversalClient) (room func()) {
	t.Helper()
	set := func(bytes string) {
		if err := rdb.ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	return func() { set("0") }
}

// cutOff makes a server refuse every write, as its replicas are away, until the returned function is called.
func cutOff(t *testing.T, rdb redis.UniversalClient) (back func()) {
	t.Helper()
	set := func(replicas string) {
		if err := rdb.ConfigSet(t.Context(), "min-replicas-to-write", replicas).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	return func() { set("0") }
}

// While Redis refuses writes nobody extends a lease, so no job is taken from its worker, then or right after it.
func TestReaperTakesNothingWhileWritesAreRefused(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*testing.T, redis.UniversalClient) func(){"full": full, "without its replicas": cutOff} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, q, ctx := client(t, alone(t).Addrs()), fresh("reaper"), t.Context()
			j := newJobs(t, rdb, nil, Queue{Name: q})
			enqueue(t, j, q, 1)
			f := newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil)
			keys, args := fetching(q)
			if f.refill(ctx, keys, args); len(f.ready) != 1 {
				t.Fatal("no job came")
			}
			const stall = time.Millisecond
			r := newReaper(newFetcher(j, j.queues[0], 0, newSlots(1, j.queues), 1, time.Millisecond, nil), stall)
			if err := r.look(ctx); err != nil {
				t.Fatal(err)
			}
			heal, last := refuse(t, rdb), r.last
			sleep(ctx, 2*stall)
			if err := r.look(ctx); err == nil || !answered(err) {
				t.Errorf("a look when writes are refused: %v", err)
			}
			heal()
			if r.last != last {
				t.Error("a look when writes are refused counts as one")
			}
			r.last = r.last.Add(-4 * reapInterval) // for so long
			if err := r.look(ctx); err != nil {
				t.Fatal(err)
			}
			if s := status(t, j, q); s.Active != 1 || s.Waiting != 0 {
				t.Errorf("the job was taken: %+v", s)
			}
			sleep(ctx, 2*stall)
			if err := r.look(ctx); err != nil {
				t.Fatal(err)
			}
			if s := status(t, j, q); s.Active != 0 || s.Waiting != 1 {
				t.Errorf("then the job of a dead worker did not come back: %+v", s)
			}
		})
	}
}

// What runs when Redis becomes full keeps its lease, and runs once.
func TestJobsOutliveAFullRedis(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, alone(t).Addrs()), fresh("full")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1, ID("long"))
	var done ledger
	release := make(chan struct{})
	handle := func(_ context.Context, job note) error {
		done.add(job.N)
		<-release
		return nil
	}
	for range 2 {
		w := newWorker(t, j, nil)
		Handle(w, handle)
		start(t, w)
	}
	eventually(t, 10*time.Second, "the job runs", func() bool { return done.n.Load() == 1 })
	room := full(t, rdb)
	lease := func() float64 { return rdb.ZScore(t.Context(), asynqKey(q, "lease"), "long").Val() }
	first, began := lease(), time.Now()
	eventually(t, 40*time.Second, "the lease is extended for longer than a stalled job is left", func() bool { return lease() >= first+18 || done.n.Load() > 1 })
	t.Logf("after %v", time.Since(began))
	close(release)
	eventually(t, 10*time.Second, "it has ended", func() bool { s := status(t, j, q); return s.Active+s.Waiting == 0 })
	room()
	done.check(t, 1, true)
	if s := status(t, j, q); s.Failed+s.Retrying != 0 {
		t.Errorf("%+v", s)
	}
}

// endCalls counts the calls of the scripts that end jobs.
type endCalls struct {
	redis.UniversalClient
	n atomic.Int64
}

func (e *endCalls) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	if sha == endScript.Hash() || sha == doneScript.Hash() {
		defer e.n.Add(1)
	}
	return e.UniversalClient.EvalSha(ctx, sha, keys, args...)
}

// Process is how scripts come that are sent once.
func (e *endCalls) Process(ctx context.Context, cmd redis.Cmder) error {
	return byDigest(ctx, e.UniversalClient, cmd, e.EvalSha)
}

// A job that ends while Redis takes no writes for want of replicas is recorded when it does, and does not run again.
func TestEndWaitsForReplicas(t *testing.T) {
	t.Parallel()
	rdb, q := &endCalls{UniversalClient: client(t, alone(t).Addrs())}, fresh("replicas")
	j := newJobs(t, rdb, nil, Queue{Name: q})
	enqueue(t, j, q, 1, MaxRetry(0))
	w := newWorker(t, j, nil)
	var done ledger
	var back func()
	Handle(w, func(_ context.Context, job note) error {
		if done.add(job.N); done.n.Load() == 1 {
			back = cutOff(t, rdb)
		}
		return nil
	})
	start(t, w)
	eventually(t, 10*time.Second, "its end is tried again and again", func() bool { return rdb.n.Load() >= 9 })
	back()
	eventually(t, 5*time.Second, "its end is recorded", func() bool { s := status(t, j, q); return s.Active+s.Waiting == 0 })
	done.check(t, 1, true)
}

// A refused end costs no connection.
func TestRefusedEndsKeepTheConnection(t *testing.T) {
	t.Parallel()
	rdb, q := client(t, alone(t).Addrs()), fresh("kept")
	f, end := twoRunning(t, rdb, q)
	made := func() string {
		return infoField(rdb.Info(t.Context(), "stats").Val(), "total_connections_received")
	}
	back, before := cutOff(t, rdb), made()
	for range 5 {
		for _, reply := range end("done", "archive") {
			if reply.err == nil || !passing(reply.err) {
				t.Errorf("an end was answered with %v", reply)
			}
		}
	}
	if after := made(); after != before {
		t.Errorf("connections were made: %s, then %s", before, after)
	}
	back()
	for i, reply := range end("done", "done") {
		if reply.text != "OK" || whole(t, rdb, q, f.ready[i].id) != "gone" {
			t.Errorf("then %v", reply)
		}
	}
}

// What passes is told from what does not.
func TestPassingRefusals(t *testing.T) {
	for why, passes := range map[refusal]bool{
		"NOREPLICAS Not enough good replicas to write.": true, "MISCONF Redis is configured to save RDB snapshots": true,
		"ERR Script attempted to access a non local key in a cluster node":                       true,
		"ERR Script attempted to execute a write command while the cluster is down and readonly": true,
		"ERR Script attempted to execute a command while the cluster is down":                    true,
		"WRONGTYPE Operation against a key":                                                      false, "OOM command not allowed": false,
	} {
		if !answered(why) || passing(why) != passes {
			t.Errorf("%s: %v", why, !passes)
		}
	}
}

// A cluster that is down and may be read refuses what scripts write in words of its own. A job that ends then ends when it is up again,
// and whether one is stored nobody says.
func TestDownButReadableClusterPasses(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	own, err := rediscluster.Start(ctx, &rediscluster.Options{Config: map[string]string{"cluster-allow-reads-when-down": "yes"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	rdb, q := client(t, own.Addrs()), fresh("down")
	f, end := twoRunning(t, rdb, q)
	here, err := own.MasterFor(ctx, taskPrefix(q))
	if err != nil {
		t.Fatal(err)
	}
	masters, err := own.Masters(ctx)
	if err != nil {
		t.Fatal(err)
	}
	away := masters[slices.IndexFunc(masters, func(n *rediscluster.Node) bool { return n != here })]
	replica, err := own.ReplicaOf(ctx, away)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(doneScript.Load(ctx, rdb).Err(), endScript.Load(ctx, rdb).Err()); err != nil {
		t.Fatal(err)
	}
	replica.Kill()
	away.Kill()
	eventually(t, 30*time.Second, "the cluster is down", func() bool {
		return infoField(here.Client().ClusterInfo(ctx).Val(), "cluster_state") == "fail"
	})
	for _, verbs := range [][]string{{"done"}, {"archive", "done"}} {
		for _, reply := range end(verbs...) {
			if reply.err == nil || !passing(reply.err) {
				t.Errorf("%v: an end was answered with %v", verbs, reply)
			}
		}
	}
	for _, unheard := range []ending{{verb: "done", id: "unheard", owner: "x"}, {verb: "retry", id: "unheard", owner: "x", score: "5"}} {
		if reply := f.ender.call(ctx, []ending{unheard})[0]; reply.err == nil || !passing(reply.err) {
			t.Errorf("%s of a job that the server has not heard of was answered with %q, %v", unheard.verb, reply.text, reply.err)
		}
	}
	j := newJobs(t, rdb, nil, Queue{Name: q})
	j.announced.Store(q, time.Now().Add(time.Hour)) // where that is written may be away
	if _, err := j.Enqueue(ctx, note{}); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("Enqueue: %v", err)
	}
	if err := errors.Join(away.Start(ctx), replica.Start(ctx), own.WaitHealthy(ctx)); err != nil {
		t.Fatal(err)
	}
	for i, reply := range end("done", "done") {
		if reply.text != "OK" || whole(t, rdb, q, f.ready[i].id) != "gone" {
			t.Errorf("then %v", reply)
		}
	}
}

// A full Redis is worked off, by one slot at a time, too: it gets room by that.
func TestFullRedisIsWorkedOff(t *testing.T) {
	t.Parallel()
	rdb := client(t, alone(t).Addrs())
	for name, slots := range map[string]int{"one slot": 1, "several": 4} {
		q := fresh("full")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		enqueue(t, j, q, 20)
		var done ledger
		first := make(chan struct{})
		w := newWorker(t, j, &WorkerOptions{Concurrency: slots})
		Handle(w, func(_ context.Context, job note) error {
			done.add(job.N)
			<-first
			return nil
		})
		stop := start(t, w)
		eventually(t, 10*time.Second, name+": it has begun", func() bool { return done.n.Load() == int64(slots) })
		room := full(t, rdb)
		close(first)
		eventually(t, 20*time.Second, name+": all are done", func() bool { s := status(t, j, q); return s.Waiting+s.Active == 0 && done.n.Load() == 20 })
		stop()
		room()
		done.check(t, 20, true)
	}
}

// The connection to a server that has become a replica is given up for one to where its name leads now, as go-redis does it for every
// answer of READONLY that is not among others: a job is stored, and an end recorded.
func TestDemotedServerIsLeft(t *testing.T) {
	t.Parallel()
	for name, verbs := range map[string][]string{"store": nil, "done": {"done"}, "several ends": {"archive", "done"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, next := alone(t), alone(t)
			var address atomic.Value
			address.Store(old.Addrs()[0])
			o := redisclient.Options(old.Addrs()[0])
			o.Dialer = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, address.Load().(string))
			}
			rdb, q := redisclient.New(o), fresh("demoted")
			t.Cleanup(func() { rdb.Close() })
			follow := func(rdb redis.UniversalClient, address string) {
				t.Helper()
				host, port, _ := strings.Cut(address, ":")
				if err := rdb.SlaveOf(t.Context(), host, port).Err(); err != nil {
					t.Fatal(err)
				}
			}
			was, is := client(t, old.Addrs()), client(t, next.Addrs())
			follow(is, old.Addrs()[0])
			f, end := twoRunning(t, rdb, q)
			j := newJobs(t, rdb, nil, Queue{Name: q})
			enqueue(t, j, q, 1, In(time.Hour))
			eventually(t, 10*time.Second, "the other one has it all", func() bool {
				return infoField(is.Info(t.Context(), "replication").Val(), "master_link_status") == "up" && is.ZCard(t.Context(), asynqKey(q, "scheduled")).Val() == 1
			})
			j.announced.Store(q, time.Now().Add(time.Hour)) // no other command meets the replica first
			follow(is, "no:one")
			follow(was, next.Addrs()[0])
			address.Store(next.Addrs()[0])
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if verbs == nil {
				if _, err := j.Enqueue(ctx, note{}); err != nil {
					t.Error(err)
				}
				return
			}
			reply, err := f.insist(ctx, func() (string, error) {
				last := end(verbs...)[len(verbs)-1]
				return last.text, last.err
			})
			if reply != "OK" || err != nil {
				t.Errorf("the end is %q: %v", reply, err)
			}
		})
	}
}

// A server that has become a replica and has not heard of a job is not believed that it does not run.
func TestDemotedServerThatLagsIsLeft(t *testing.T) {
	t.Parallel()
	for name, verbs := range map[string][]string{"done": {"done"}, "several ends": {"archive", "done"}, "an end": {"retry"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, next := alone(t), alone(t)
			var address atomic.Value
			address.Store(old.Addrs()[0])
			o := redisclient.Options(old.Addrs()[0])
			o.Dialer = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, address.Load().(string))
			}
			rdb, q, ctx := redisclient.New(o), fresh("lags"), t.Context()
			t.Cleanup(func() { rdb.Close() })
			was := client(t, old.Addrs())
			stale := rdb.(*redis.Client).Conn()
			if err := stale.Ping(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			if err := was.SlaveOf(ctx, "127.0.0.1", "1").Err(); err != nil { // it hears of nothing
				t.Fatal(err)
			}
			for _, s := range []*redis.Script{endScript, doneScript} {
				if err := s.Load(ctx, was).Err(); err != nil {
					t.Fatal(err)
				}
			}
			address.Store(next.Addrs()[0])
			f, _ := twoRunning(t, rdb, q)
			batch := make([]ending, len(verbs))
			for i, verb := range verbs {
				batch[i] = ending{verb: verb, id: f.ready[i].id, owner: f.nonce(), msg: f.ready[i].msg}
				if verb != "done" {
					batch[i].score = "5"
				}
			}
			stale.Close() // to the pool, from which it is taken next
			limited, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			reply, err := f.insist(limited, func() (string, error) {
				last := f.ender.call(limited, batch)[len(batch)-1]
				return last.text, last.err
			})
			if reply != "OK" || err != nil {
				t.Errorf("the end is %q: %v", reply, err)
			}
			if calls := infoField(was.Info(ctx, "commandstats").Val(), "cmdstat_evalsha"); calls == "" {
				t.Error("the replica was not asked")
			}
		})
	}
}

// A worker that starts when Redis is full runs what waits.
func TestWorkerStartsOnAFullRedis(t *testing.T) {
	t.Parallel()
	for name, declared := range map[string]Queue{"without limits": {}, "limited": {Rate: Rate{Max: 10, Per: time.Second}, Concurrency: 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb := client(t, alone(t).Addrs())
			declared.Name = fresh("full")
			j := newJobs(t, rdb, nil, declared)
			enqueue(t, j, declared.Name, 1)
			defer full(t, rdb)()
			var ran atomic.Bool
			w := newWorker(t, j, nil)
			Handle(w, func(context.Context, note) error { ran.Store(true); return nil })
			defer start(t, w)()
			eventually(t, 20*time.Second, "the job has run", ran.Load)
		})
	}
}
