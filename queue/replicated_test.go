package queue

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/metrics"
)

// outbox returns the Jobs of a queue whose outbox is relayed often, its failures, and what puts so many jobs into it.
func outbox(t *testing.T, rdb redis.UniversalClient, db *pgxpool.Pool, q string) (j *Jobs, failures *prometheus.CounterVec, put func(n int)) {
	t.Helper()
	reg := prometheus.NewRegistry()
	failures, err := metrics.NewCounter(reg, metrics.BackgroundErrors)
	if err != nil {
		t.Fatal(err)
	}
	j = newJobs(t, rdb, &Options{Outbox: db, OutboxInterval: 20 * time.Millisecond, Registerer: reg}, Queue{Name: q})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	return j, failures, func(n int) {
		t.Helper()
		for i := range n {
			if err := j.EnqueueTx(t.Context(), db, note{N: i}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestOutboxOutlivesTheMaster lets a master die with jobs that no replica has: they must come again from the outbox.
func TestOutboxOutlivesTheMaster(t *testing.T) {
	t.Parallel()
	rd, err := rediscluster.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	rdb := client(t, rd.Addrs())
	db := pool(t)
	q := fresh("replicated")
	j, failures, put := outbox(t, rdb, db, q)
	start(t, j)
	put(1)
	eventually(t, 20*time.Second, "a healthy cluster confirms", func() bool { return rows(t, db) == 0 })

	master, err := rd.MasterFor(t.Context(), asynqKey(q, "pending"))
	if err != nil {
		t.Fatal(err)
	}
	replica, err := rd.ReplicaOf(t.Context(), master)
	if err != nil {
		t.Fatal(err)
	}
	replica.Freeze()
	put(5)
	eventually(t, 20*time.Second, "the jobs are on the master alone", func() bool { return status(t, j, q).Waiting == 6 })
	eventually(t, 20*time.Second, "the relay says that no replica confirms", func() bool {
		return testutil.ToFloat64(failures.WithLabelValues("queue", "outbox")) > 0
	})
	if n := rows(t, db); n != 5 {
		t.Errorf("%d rows are left while no replica has their 5 jobs", n)
	}
	master.Kill()
	replica.Thaw()
	eventually(t, 40*time.Second, "the outbox is empty again", func() bool { return rows(t, db) == 0 })
	if got := status(t, j, q).Waiting; got != 6 {
		t.Errorf("%d jobs wait on the promoted replica, want 6", got)
	}
}

// TestOutboxOutlivesACutOffMaster has jobs only on a master that has lost its replica to Sentinel, and does not know.
func TestOutboxOutlivesACutOffMaster(t *testing.T) {
	t.Parallel()
	master, replica := alone(t).Nodes()[0], alone(t).Nodes()[0]
	host, port, err := net.SplitHostPort(master.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := replica.Client().Do(t.Context(), "REPLICAOF", host, port).Err(); err != nil {
		t.Fatal(err)
	}
	var leads atomic.Pointer[rediscluster.Node] // in the eyes of Sentinel
	leads.Store(master)
	rdb := redis.NewClient(&redis.Options{Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", leads.Load().Addr())
	}})
	t.Cleanup(func() { rdb.Close() })
	q, db := fresh("cut-off"), pool(t)
	j, failures, put := outbox(t, rdb, db, q)
	replicas := func(n int) func() bool {
		return func() bool {
			info := master.Client().Info(t.Context(), "replication").Val()
			return strings.Contains(info, fmt.Sprintf("connected_slaves:%d", n)) && strings.Count(info, "state=online") == n
		}
	}
	eventually(t, 20*time.Second, "the replica replicates", replicas(1))
	start(t, j)
	put(1)
	eventually(t, 20*time.Second, "the replica confirms", func() bool { return rows(t, db) == 0 })
	if err := replica.Client().Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil { // it is promoted
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the master is alone", replicas(0))
	put(5)
	eventually(t, 20*time.Second, "the jobs are on the master alone", func() bool { return status(t, j, q).Waiting == 6 })
	eventually(t, 20*time.Second, "the relay says that no replica confirms", func() bool {
		return testutil.ToFloat64(failures.WithLabelValues("queue", "outbox")) > 0
	})
	if n := rows(t, db); n != 5 {
		t.Errorf("%d rows are left while no replica has their 5 jobs", n)
	}
	leads.Store(replica)
	master.Kill()
	eventually(t, 20*time.Second, "the jobs are on the promoted replica", func() bool {
		s, err := j.Status(t.Context(), q)
		return err == nil && s.Waiting == 6
	})
	if n := rows(t, db); n != 5 {
		t.Errorf("%d rows are left, while the promoted replica may have one any moment", n)
	}
	j.replicas.mu.Lock()
	j.replicas.since = j.replicas.since.Add(-time.Hour)
	j.replicas.mu.Unlock()
	eventually(t, 20*time.Second, "a server that stays alone is one without replicas", func() bool { return rows(t, db) == 0 })
}

// A server counts as one without replicas when it never had one, or has had none for long.
func TestReplicasGone(t *testing.T) {
	t.Parallel()
	const (
		one    = "role:master\r\nconnected_slaves:1\r\nrepl_backlog_active:1\r\n"
		lost   = "role:master\r\nconnected_slaves:0\r\nrepl_backlog_active:1\r\n"
		fresh  = "role:master\r\nconnected_slaves:0\r\nrepl_backlog_active:0\r\n"
		minute = time.Minute
	)
	type look struct {
		after time.Duration
		info  string
		want  bool
	}
	for name, looks := range map[string][]look{
		"never had one":                      {{0, fresh, true}, {minute, fresh, true}},
		"lost it":                            {{0, one, false}, {5 * minute, lost, false}, {6 * minute, lost, false}, {8 * minute, lost, true}},
		"lost it before this process began":  {{0, lost, false}, {minute, lost, false}, {3 * minute, lost, true}},
		"lost it, and then its memory":       {{0, one, false}, {minute, fresh, false}, {4 * minute, fresh, true}},
		"its replica comes back and is lost": {{0, lost, false}, {minute, one, false}, {3 * minute, lost, false}, {6 * minute, lost, true}},
	} {
		var r replicas
		begin := time.Now()
		for _, l := range looks {
			if got := r.gone(l.info, begin.Add(l.after), 2*minute); got != l.want {
				t.Errorf("%s: after %v: %v, want %v", name, l.after, got, l.want)
			}
		}
	}
}

func TestListsReplica(t *testing.T) {
	const nodes = `aaa 127.0.0.1:1@11 myself,master - 0 0 1 connected 0-5460
bbb 127.0.0.1:2@12 FLAGS MASTER 0 0 1 connected
ccc 127.0.0.1:3@13 slave ddd 0 0 3 connected
`
	for _, c := range []struct {
		flags, master string
		want          bool
	}{
		{"slave", "aaa", true},
		{"slave,fail?", "aaa", true}, // one node's suspicion, perhaps that of a master which is itself cut off
		{"slave,fail", "aaa", false},
		{"slave,fail,noaddr", "aaa", false},
		{"slave", "ddd", false},
		{"master", "-", false},
	} {
		if got := listsReplica(strings.NewReplacer("FLAGS", c.flags, "MASTER", c.master).Replace(nodes)); got != c.want {
			t.Errorf("%s of %s: %v, want %v", c.flags, c.master, got, c.want)
		}
	}
}

// TestOutboxNoticesJobsThatAreGone loses jobs between the moment that they are stored and the one that they are
// confirmed, as a failover does.
func TestOutboxNoticesJobsThatAreGone(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("gone")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		kept, lost := &outboxRow{}, &outboxRow{}
		for _, row := range []*outboxRow{kept, lost} {
			info, err := j.Enqueue(t.Context(), note{})
			if err != nil {
				t.Fatal(err)
			}
			row.ID, row.Queue = info.ID, q
		}
		if err := rdb.Del(t.Context(), taskPrefix(q)+lost.ID).Err(); err != nil {
			t.Fatal(err)
		}
		safe, alone, err := j.replicated(t.Context(), []*outboxRow{kept, lost})
		if err != nil || len(safe) != 1 || safe[0] != kept || len(alone) != 1 || alone[0] != lost {
			t.Fatalf("safe %v, alone %v, %v", safe, alone, err)
		}
	})
}

// TestOutboxRowsGiveWay has more rows of a queue whose server is away than fit into a batch.
func TestOutboxRowsGiveWay(t *testing.T) {
	t.Parallel()
	rd, err := rediscluster.Start(t.Context(), &rediscluster.Options{Config: map[string]string{"cluster-require-full-coverage": "no"}})
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	rdb, db := client(t, rd.Addrs()), pool(t)
	master := func(queue string) *rediscluster.Node {
		node, err := rd.MasterFor(t.Context(), taskPrefix(queue))
		if err != nil {
			t.Fatal(err)
		}
		return node
	}
	listing, err := rd.MasterFor(t.Context(), allQueues) // without which asynq adds no new queue
	if err != nil {
		t.Fatal(err)
	}
	dead, living := fresh("dead"), fresh("living")
	for master(living) == master(dead) || master(living).Addr() != listing.Addr() {
		dead, living = fresh("dead"), fresh("living")
	}
	j := newJobs(t, rdb, &Options{Outbox: db, OutboxInterval: 20 * time.Millisecond}, Queue{Name: dead}, Queue{Name: living})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range relayBatch + 50 {
		if err := j.EnqueueTx(t.Context(), db, note{N: i}, On(dead)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.EnqueueTx(t.Context(), db, note{}, On(living)); err != nil {
		t.Fatal(err)
	}
	replica, err := rd.ReplicaOf(t.Context(), master(dead))
	if err != nil {
		t.Fatal(err)
	}
	replica.Kill() // nobody takes over
	master(dead).Kill()
	start(t, j)
	eventually(t, 30*time.Second, "the living queue's job gets through", func() bool {
		depth, err := j.Status(t.Context(), living)
		return err == nil && depth.Waiting == 1
	})
	if n := rows(t, db); n < relayBatch+50 {
		t.Errorf("%d rows are left, of %d for a server that is away", n, relayBatch+50)
	}
}
