package consistency

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
)

// Jobs that read the row which was written before they were enqueued, as each consistency has it.
type (
	sticky  struct{ Row int64 }
	delayed struct{ Row int64 }
	always  struct{ Row int64 }
)

func (sticky) Kind() string                    { return "sticky" }
func (delayed) Kind() string                   { return "delayed" }
func (always) Kind() string                    { return "always" }
func (delayed) Consistency() queue.Consistency { return queue.ReadDelayed }
func (always) Consistency() queue.Consistency  { return queue.ReadAlways }

// found is what the jobs of a kind have read.
type found struct{ ran, missed, onReplica atomic.Int64 }

// Rows are written, and jobs read them while replicas are behind, by two seconds and more, or stand still: each finds its row, by
// whichever consistency. Those that read always are enqueued by somebody who knows nothing of the write. SCALEAWARE_JOBS is the number of jobs.
func TestJobsFindTheirRows(t *testing.T) {
	n := 3000
	if text := os.Getenv("SCALEAWARE_JOBS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		must(t, err)
	}
	ctx := t.Context()
	c := postgres.Get(t)
	database := c.Database(t)
	conn, err := c.Primary().Connect(ctx, database)
	must(t, err)
	_, err = conn.Exec(ctx, `create table leads (id bigint primary key)`)
	must(t, errors.Join(err, conn.Close(ctx)))

	db, err := dbsplit.Open(ctx, nodesOf(c, database), &dbsplit.Options{MinConns: 4, MaxConns: 12, ProbeTimeout: 10 * time.Second, ConnectTimeout: 20 * time.Second})
	must(t, err)
	t.Cleanup(db.Close)
	rdb := redisclient.New(redisclient.Options(redis.Get(t).Addrs()...))
	t.Cleanup(func() { rdb.Close() })
	j, err := queue.New(rdb, []queue.Queue{{Name: "leads"}}, &queue.Options{Outbox: db, OutboxInterval: 10 * time.Millisecond})
	must(t, err)
	must(t, j.EnsureOutbox(ctx))
	w, err := j.NewWorker(&queue.WorkerOptions{Concurrency: 16, Replicas: db})
	must(t, err)
	tallies := map[string]*found{"sticky": {}, "delayed": {}, "always": {}, "carrying nothing": {}}
	read := func(ctx context.Context, of string, row int64) error {
		const one = `select current_setting('cluster_name') from leads where id = $1`
		tally, node := tallies[of], ""
		err := db.Read().QueryRow(ctx, one, row).Scan(&node)
		switch {
		case err == nil && replica(node):
			tally.onReplica.Add(1)
		case errors.Is(err, pgx.ErrNoRows):
			tally.missed.Add(1)
		case err != nil:
			return err // again: the database was busy
		}
		tally.ran.Add(1)
		if row%10 == 0 && of == "sticky" { // what a job would see that knows nothing
			bare, _ := scaleaware.WithWatermark(context.WithoutCancel(ctx))
			if err := db.Read().QueryRow(bare, one, row).Scan(&node); errors.Is(err, pgx.ErrNoRows) {
				tallies["carrying nothing"].missed.Add(1)
			}
		}
		return nil
	}
	queue.Handle(w, func(ctx context.Context, job sticky) error { return read(ctx, "sticky", job.Row) })
	queue.Handle(w, func(ctx context.Context, job delayed) error { return read(ctx, "delayed", job.Row) })
	queue.Handle(w, func(ctx context.Context, job always) error { return read(ctx, "always", job.Row) })
	running, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for _, run := range []func(context.Context) error{db.Run, j.Run, w.Run} {
		group.Go(func() {
			if err := run(running); err != nil {
				t.Error(err)
			}
		})
	}
	defer group.Wait()
	defer stop()
	eventually(t, "both replicas", func() bool {
		fresh := 0
		for _, node := range db.Nodes() {
			if node.Role == "replica" && node.Up && node.Staleness >= 0 {
				fresh++
			}
		}
		return fresh == 2
	})
	lag, stopLag := startLag(t, c, seed(t), true)
	began := time.Now()
	const batch = 30
	batches := time.Duration((n + batch - 1) / batch)
	pace := time.NewTicker(max(60*time.Millisecond, 20*time.Second/batches)) // so that they meet every lag
	defer pace.Stop()
	for first := int64(0); first < int64(n); first += batch {
		must(t, writeAndEnqueue(ctx, db, j, first, min(batch, int64(n)-first)))
		<-pace.C
	}
	done := func() int64 {
		return tallies["sticky"].ran.Load() + tallies["delayed"].ran.Load() + tallies["always"].ran.Load()
	}
	eventually(t, "all jobs", func() bool { return done() == int64(n) })
	stopLag()
	t.Logf("%d jobs in %v, lag in %v", n, time.Since(began).Round(time.Millisecond), lag)
	for kind, tally := range tallies {
		t.Logf("%s: %d ran, %d on a replica, %d did not find their row", kind, tally.ran.Load(), tally.onReplica.Load(), tally.missed.Load())
		if kind != "carrying nothing" && (tally.missed.Load() > 0 || tally.ran.Load() < int64(n)/4) {
			t.Errorf("%s: %d of %d jobs did not find their row", kind, tally.missed.Load(), tally.ran.Load())
		}
	}
	if lag.seen.far[0]+lag.seen.far[1] == 0 {
		t.Errorf("no replica was ever %v behind", far)
	}
	if tallies["carrying nothing"].missed.Load() == 0 || tallies["delayed"].onReplica.Load() == 0 || tallies["sticky"].onReplica.Load() == 0 {
		t.Error("replicas were never behind, or never read: the run could not have shown anything")
	}
}

// writeAndEnqueue stores rows and a job for each: directly after the commit, or in every other call in the same transaction.
func writeAndEnqueue(ctx context.Context, db *dbsplit.DB, j *queue.Jobs, first, n int64) error {
	knows, _ := scaleaware.WithWatermark(ctx)
	var later, strangers []queue.Job
	err := db.InTx(knows, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `insert into leads select generate_series($1::bigint, $2::bigint)`, first, first+n-1); err != nil {
			return err
		}
		for row := first; row < first+n; row++ {
			var job queue.Job
			switch row % 3 {
			case 0:
				job = sticky{row}
			case 1:
				job = delayed{row}
			default:
				strangers = append(strangers, always{row})
				continue
			}
			if first/n%2 == 0 {
				later = append(later, job)
			} else if err := j.EnqueueTx(knows, tx, job); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && len(later) > 0 {
		_, err = j.EnqueueMany(knows, later)
	}
	if err == nil && len(strangers) > 0 {
		_, err = j.EnqueueMany(ctx, strangers)
	}
	return err
}
