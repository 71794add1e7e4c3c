package queue

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

func pool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	c := database.Get(t)
	p, err := pgxpool.New(t.Context(), c.Primary().URL(c.Database(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func rows(t *testing.T, db *pgxpool.Pool) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM scaleaware_outbox`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// dying is an outbox whose relay is killed: every third transaction loses its backend right before the commit, when
// the jobs are in Redis and the rows not yet deleted.
type dying struct {
	*pgxpool.Pool
	n, kills atomic.Int64
}

func (d *dying) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := d.Pool.Begin(ctx)
	return &dyingTx{Tx: tx, d: d}, err
}

type dyingTx struct {
	pgx.Tx
	d *dying
}

func (tx *dyingTx) Commit(ctx context.Context) error {
	if tx.d.n.Add(1)%3 == 1 {
		tx.d.kills.Add(1)
		_, err := tx.Tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
		return err
	}
	return tx.Tx.Commit(ctx)
}

func TestOutboxIsExactAcrossRelayDeaths(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		db := pool(t)
		q := fresh("outbox")
		outbox := &dying{Pool: db}
		opts := &Options{Outbox: outbox, OutboxInterval: 5 * time.Millisecond}
		j := newJobs(t, rdb, &Options{Outbox: db}, Queue{Name: q})
		for range 2 {
			if err := j.EnsureOutbox(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		n := min(many(t, 300), 10_000)
		var want []int
		for i := range n {
			tx, err := db.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := j.EnqueueTx(t.Context(), tx, note{N: i}); err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				err = tx.Rollback(t.Context())
			} else {
				want = append(want, i)
				err = tx.Commit(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var done ledger
		w := newWorker(t, j, nil)
		Handle(w, func(ctx context.Context, job note) error {
			if job.N%2 == 0 {
				t.Errorf("job %d of a rolled-back transaction ran", job.N)
			}
			if tokens, err := scaleaware.WatermarkFrom(ctx).Written(ctx); len(tokens) != 1 || err != nil {
				t.Errorf("tokens = %v, %v; want the database's", tokens, err)
			}
			done.add((job.N - 1) / 2)
			return nil
		})
		start(t, w)
		for range 2 { // two relays that die all the time
			start(t, newJobs(t, rdb, opts, Queue{Name: q}))
		}
		eventually(t, 120*time.Second, "the outbox is empty and all is done", func() bool {
			if rows(t, db) > 0 { // a row goes after its job has come
				return false
			}
			s := status(t, j, q)
			return s.Waiting == 0 && s.Active == 0
		})
		done.check(t, len(want), true)
		if outbox.kills.Load() == 0 {
			t.Error("no relay died, the test proves nothing")
		}
	})
}

// Rows of a closed queue keep, come soon after it is open again, and have failed in nothing.
func TestOutboxWaitsForClosedQueue(t *testing.T) {
	t.Parallel()
	db := pool(t)
	q := fresh("shut")
	j := newJobs(t, client(t, single.Get(t).Addrs()), &Options{Outbox: db, OutboxInterval: 5 * time.Millisecond}, Queue{Name: q})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Close(t.Context(), q, nil); err != nil {
		t.Fatal(err)
	}
	if err := j.EnqueueTx(t.Context(), db, note{N: 1}); err != nil {
		t.Fatal(err)
	}
	away := awayQueues{}
	for range 3 { // each finds the queue closed
		if _, err := j.relay(t.Context(), away); err != nil {
			t.Fatal(err)
		}
		clear(away)
	}
	var failures int
	if err := db.QueryRow(t.Context(), `SELECT failures FROM scaleaware_outbox`).Scan(&failures); err != nil || failures != 0 {
		t.Errorf("the row has failed %d times, %v", failures, err)
	}
	if n := testutil.ToFloat64(j.meters.enqueued.WithLabelValues(q, "failed")); n != 0 {
		t.Errorf("%v failures are counted", n)
	}
	if _, err := j.Open(t.Context(), q, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := j.relay(t.Context(), away); err != nil || rows(t, db) != 0 || status(t, j, q).Waiting != 1 {
		t.Errorf("the row did not become a job: %v", err)
	}
}

// TestOutboxWaitsForRedis commits while Redis does not answer.
func TestOutboxWaitsForRedis(t *testing.T) {
	t.Parallel()
	db := pool(t)
	proxy, rdb := proxied(t, 200*time.Millisecond)
	q := fresh("outbox")
	gate := new(switchGate)
	j := newJobs(t, rdb, &Options{Outbox: db, OutboxInterval: 5 * time.Millisecond, Gate: gate}, Queue{Name: q})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.Refuse()
	proxy.Reset()
	if err := j.EnqueueTx(t.Context(), db, note{}); err != nil {
		t.Fatalf("EnqueueTx needs Redis: %v", err)
	}
	// A row that can never be enqueued must not hold up the others.
	if _, err := db.Exec(t.Context(), `INSERT INTO scaleaware_outbox (id, queue, kind, payload, settings) VALUES ('00000000-0000-0000-0000-000000000000', 'a{b}', 'x', '', '{}')`); err != nil {
		t.Fatal(err)
	}
	gate.closed.Store(true)
	start(t, j)
	proxy.Heal()
	direct := newJobs(t, client(t, single.Get(t).Addrs()), nil, Queue{Name: q})
	if s := status(t, direct, q); s.Waiting != 0 || rows(t, db) != 2 {
		t.Errorf("the relay wrote in read-only mode: %+v", s)
	}
	gate.closed.Store(false)
	eventually(t, 15*time.Second, "the job is in its queue", func() bool { return status(t, direct, q).Waiting == 1 && rows(t, db) == 1 })
	var problem string
	if err := db.QueryRow(t.Context(), `SELECT last_error FROM scaleaware_outbox WHERE failures > 0 AND due_at > now()`).Scan(&problem); err != nil || !strings.Contains(problem, "a{b}") {
		t.Errorf("the bad row says %q, %v", problem, err)
	}
}

// TestOutboxAsksForNoSecondConnection enqueues in a transaction whose request has written before.
func TestOutboxAsksForNoSecondConnection(t *testing.T) {
	t.Parallel()
	db := pool(t)
	j := newJobs(t, client(t, []string{"127.0.0.1:1"}), &Options{Outbox: db}, Queue{Name: "q"})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, mark := scaleaware.WithWatermark(t.Context())
	mark.Raise(scaleaware.Token{System: 7, Timeline: 1, LSN: 9})
	var source asked
	mark.RaiseFrom(&source)
	if err := j.EnqueueTx(ctx, db, note{}); err != nil {
		t.Fatal(err)
	}
	var tokens string
	if err := db.QueryRow(ctx, `SELECT settings->'headers'->>'scaleaware-tokens' FROM scaleaware_outbox`).Scan(&tokens); err != nil || tokens != "7:1:0/9" {
		t.Errorf("tokens in the outbox = %q, %v", tokens, err)
	}
	if source.n.Load() != 0 {
		t.Error("EnqueueTx asked the database for its position")
	}
}

type asked struct{ n atomic.Int64 }

func (a *asked) Position(ctx context.Context) (scaleaware.Token, error) {
	if err := ctx.Err(); err != nil {
		return scaleaware.Token{}, err
	}
	a.n.Add(1)
	return scaleaware.Token{}, nil
}

// counting is an outbox that counts how often the database is asked where it stands.
type counting struct {
	*pgxpool.Pool
	asked atomic.Int64
}

func (c *counting) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := c.Pool.Begin(ctx)
	return &countingTx{tx, c}, err
}

type countingTx struct {
	pgx.Tx
	c *counting
}

func (tx *countingTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if strings.Contains(sql, "pg_current_wal_insert_lsn") {
		tx.c.asked.Add(1)
	}
	return tx.Tx.QueryRow(ctx, sql, args...)
}

// telling is one that tells its position by itself, as a dbsplit.DB does.
type telling struct{ *counting }

func (o telling) Position(context.Context) (scaleaware.Token, error) {
	o.asked.Add(1)
	return scaleaware.Token{System: 7, Timeline: 1, LSN: 9}, nil
}

// The relay asks the database where it stands once for each batch, however many jobs that has, and not at all for none. Each job has it.
func TestRelayAsksForOnePositionABatch(t *testing.T) {
	t.Parallel()
	rdb := client(t, single.Get(t).Addrs())
	for name, tells := range map[string]bool{"the outbox is asked": false, "the outbox tells": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := &counting{Pool: pool(t)}
			var outbox Outbox = db
			if tells {
				outbox = telling{db}
			}
			q := fresh("positions")
			j := newJobs(t, rdb, &Options{Outbox: outbox}, Queue{Name: q})
			if err := j.EnsureOutbox(t.Context()); err != nil {
				t.Fatal(err)
			}
			const n = 2*relayBatch + 1
			for i := range n {
				if err := j.EnqueueTx(t.Context(), db.Pool, note{N: i}); err != nil {
					t.Fatal(err)
				}
			}
			for i, want := range []int{relayBatch, relayBatch, 1, 0} {
				before := db.asked.Load()
				got, err := j.relay(t.Context(), awayQueues{})
				if asked := db.asked.Load() - before; got != want || err != nil || asked != int64(min(want, 1)) {
					t.Errorf("batch %d: %d rows, %v; the database was asked %d times", i, got, err, asked)
				}
			}
			stored := pendingIDs(t, rdb, q)
			for _, id := range stored {
				info, err := j.asynq.GetTaskInfo(q, id)
				if err != nil {
					t.Fatal(err)
				}
				if tokens, err := tokensIn(info.Headers); len(tokens) != 1 || err != nil {
					t.Errorf("job %s carries %v, %v", id, tokens, err)
				}
			}
			if len(stored) != n {
				t.Errorf("%d jobs are stored, want %d", len(stored), n)
			}
		})
	}
}

func TestOutboxMistakes(t *testing.T) {
	t.Parallel()
	db := pool(t)
	j := newJobs(t, client(t, []string{"127.0.0.1:1"}), nil, Queue{Name: "q"})
	if err := j.EnsureOutbox(t.Context()); err == nil {
		t.Error("EnsureOutbox without Options.Outbox returned nil")
	}
	if err := j.EnqueueTx(t.Context(), db, note{}); err == nil || !strings.Contains(err.Error(), "EnsureOutbox") {
		t.Errorf("EnqueueTx without the table = %v, want what to do", err)
	}
	if err := j.EnqueueTx(t.Context(), db, note{}, ID("x")); err == nil || !strings.Contains(err.Error(), "UUID") {
		t.Errorf("EnqueueTx with an ID = %v", err)
	}
	if err := j.EnqueueTx(t.Context(), db, note{}, On("other")); !errors.Is(err, ErrUnknownQueue) {
		t.Errorf("EnqueueTx on another queue = %v", err)
	}
}

func TestOutboxRefusesTheSameIDTwice(t *testing.T) {
	t.Parallel()
	db := pool(t)
	j := newJobs(t, client(t, single.Get(t).Addrs()), &Options{Outbox: db}, Queue{Name: fresh("twice")})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := uuid.NewString()
	if err := j.EnqueueTx(t.Context(), tx, note{}, ID(id)); err != nil {
		t.Fatal(err)
	}
	if err := j.EnqueueTx(t.Context(), tx, note{}, ID(id)); !errors.Is(err, ErrExists) {
		t.Errorf("the second one = %v", err)
	}
	if err := j.EnqueueTx(t.Context(), tx, note{}, ID(strings.ToUpper(id))); err == nil || !strings.Contains(err.Error(), "lower case") {
		t.Errorf("another spelling = %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatalf("the caller's transaction was aborted: %v", err)
	}
	if n := rows(t, db); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestPostponedForEver(t *testing.T) {
	t.Parallel()
	db := pool(t)
	j := newJobs(t, client(t, single.Get(t).Addrs()), &Options{Outbox: db}, Queue{Name: fresh("postponed")})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := j.EnqueueTx(t.Context(), db, note{}); err != nil {
		t.Fatal(err)
	}
	// After a week of failures; a power of two that overflows would stop the whole outbox.
	if _, err := db.Exec(t.Context(), `UPDATE scaleaware_outbox SET failures = 5000, settings = '"broken"'`); err != nil {
		t.Fatal(err)
	}
	if _, err := j.relay(t.Context(), awayQueues{}); err != nil {
		t.Fatal(err)
	}
	var failures int
	if err := db.QueryRow(t.Context(), `SELECT failures FROM scaleaware_outbox`).Scan(&failures); err != nil || failures != 5001 {
		t.Fatalf("failures = %d, %v", failures, err)
	}
}

// The database's clock was set back after a row was stored, and after another was postponed: neither waits for it.
func TestOutboxWaitsForNoClock(t *testing.T) {
	t.Parallel()
	db := pool(t)
	j := newJobs(t, client(t, single.Get(t).Addrs()), &Options{Outbox: db}, Queue{Name: fresh("clock")})
	if err := j.EnsureOutbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := j.EnqueueTx(t.Context(), db, note{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec(t.Context(), `WITH numbered AS (SELECT id, row_number() OVER () AS n FROM scaleaware_outbox)
		UPDATE scaleaware_outbox o SET
			failures = CASE n WHEN 1 THEN 0 ELSE 1 END,
			due_at = now() + CASE n WHEN 1 THEN interval '5 minutes' WHEN 2 THEN interval '1 hour' ELSE interval '10 seconds' END
		FROM numbered WHERE o.id = numbered.id`); err != nil {
		t.Fatal(err)
	}
	if _, err := j.relay(t.Context(), awayQueues{}); err != nil {
		t.Fatal(err)
	}
	if n := rows(t, db); n != 1 {
		t.Errorf("%d rows are left, want the one that was postponed by ten seconds", n)
	}
}
