package consistency

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pairstore"
	"github.com/scaleaware/scaleaware/readonly/pgstore"
	"github.com/scaleaware/scaleaware/readonly/redisstore"
	"github.com/scaleaware/scaleaware/redisclient"
)

// Jobs that write a row, and that count rows.
type (
	entering struct{ Row int64 }
	counting struct{ N int }
)

func (entering) Kind() string { return "entering" }
func (counting) Kind() string { return "counting" }

// modeGate lets the database be opened before the switch, whose state it keeps.
type modeGate struct{ mode *readonly.Switch }

func (g *modeGate) AllowWrite(ctx context.Context) error { return g.mode.AllowWrite(ctx) }

// While the primary is away, jobs that write are held where they are and new ones are refused, and those that only read run on
// replicas. When it is back, all that was held is done, by itself.
func TestLostPrimaryHoldsWritingJobs(t *testing.T) {
	ctx := t.Context()
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Replicas: 1})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	const database = "postgres"
	gate := new(modeGate)
	db, err := dbsplit.Open(ctx, nodesOf(c, database), &dbsplit.Options{Gate: gate})
	must(t, err)
	t.Cleanup(db.Close)
	rdb := redisclient.New(redisclient.Options(redis.Get(t).Addrs()...))
	t.Cleanup(func() { rdb.Close() })

	flag, err := redisstore.New(rdb, &redisstore.Options{Prefix: "lost-primary:"})
	must(t, err)
	row, err := pgstore.New(db, nil)
	must(t, err)
	both, err := pairstore.New(flag, row, nil)
	must(t, err)
	gate.mode, err = readonly.New(both, nil)
	must(t, err)
	keeper, err := readonly.NewKeeper(gate.mode, []readonly.Trip{{Name: "the database takes no writes", Check: db.Writable}},
		&readonly.KeeperOptions{Interval: 200 * time.Millisecond, Lease: 5 * time.Second})
	must(t, err)
	setUp := readonly.OwnWrite(ctx)
	must(t, row.Migrate(setUp))
	_, err = db.Exec(setUp, `create table leads (id bigint primary key)`)
	must(t, err)

	names := [2]string{"writes-" + uuid.NewString()[:8], "reads-" + uuid.NewString()[:8]}
	queues := []queue.Queue{{Name: names[0]}, {Name: names[1], ReadsOnly: true}}
	j, err := queue.New(rdb, queues, &queue.Options{Gate: gate.mode})
	must(t, err)
	stranger, err := queue.New(rdb, queues, nil) // a service whose jobs come in whatever the mode
	must(t, err)
	w, err := j.NewWorker(nil)
	must(t, err)
	var writing, counted atomic.Int64
	queue.Handle(w, func(ctx context.Context, job entering) error {
		writing.Add(1)
		_, err := db.Exec(ctx, `insert into leads values ($1) on conflict do nothing`, job.Row)
		return err
	})
	queue.Handle(w, func(ctx context.Context, _ counting) error {
		var n int64
		if err := db.Read().QueryRow(ctx, `select count(*) from leads`).Scan(&n); err != nil {
			return err
		}
		counted.Add(1)
		return nil
	})
	running, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, run := range []func(context.Context) error{db.Run, gate.mode.Run, keeper.Run, j.Run, w.Run} {
		group.Go(func() {
			if err := run(running); err != nil {
				t.Error(err)
			}
		})
	}
	defer group.Wait()
	defer stop()
	enqueue := func(by *queue.Jobs, on string, job queue.Job) {
		t.Helper()
		_, err := by.Enqueue(ctx, job, queue.On(on), queue.MaxRetry(0))
		must(t, err)
	}
	status := func(name string) *queue.Status {
		t.Helper()
		s, err := j.Status(ctx, name)
		must(t, err)
		return s
	}
	rows := func() (n int) {
		_ = db.Read().QueryRow(ctx, `select count(*) from leads`).Scan(&n)
		return n
	}

	eventually(t, "writes are allowed", func() bool { return gate.mode.AllowWrite(ctx) == nil })
	enqueue(j, names[0], entering{0})
	eventually(t, "a row is on the replica", func() bool { return rows() == 1 })

	c.Primary().Kill()
	eventually(t, "writes are refused", func() bool { return errors.Is(gate.mode.AllowWrite(ctx), readonly.ErrReadOnly) })
	const n = 20
	before := writing.Load()
	for i := range n {
		enqueue(stranger, names[0], entering{int64(1 + i)})
		enqueue(j, names[1], counting{i})
	}
	if _, err := j.Enqueue(ctx, entering{99}, queue.On(names[0])); !errors.Is(err, readonly.ErrReadOnly) {
		t.Errorf("a new job that writes: %v, want ErrReadOnly", err)
	}
	eventually(t, "those that read are done", func() bool { return counted.Load() == n })
	if s := status(names[0]); s.Waiting != n || s.Active != 0 || writing.Load() != before || gate.mode.AllowWrite(ctx) == nil {
		t.Errorf("%d of those that write have begun without a primary: %+v", writing.Load()-before, s)
	}

	must(t, c.Primary().Start(ctx))
	eventually(t, "what was held is done", func() bool { return rows() == 1+n })
	for _, name := range names {
		eventually(t, name+" is empty", func() bool { s := status(name); return s.Waiting+s.Active+s.Retrying == 0 })
		if s := status(name); s.Failed != 0 {
			t.Errorf("%d jobs of %s have failed", s.Failed, name)
		}
	}
	if ran := writing.Load() - before; ran != n {
		t.Errorf("%d jobs were held, and %d ran", n, ran)
	}
}
