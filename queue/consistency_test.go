package queue

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/scaleaware/scaleaware"
)

// lagging is a fleet of replicas that has nothing new until told.
type lagging struct{ caught atomic.Bool }

func (l *lagging) Caught(tokens scaleaware.Tokens) bool { return len(tokens) == 0 || l.caught.Load() }

type patient struct{ note }

func (patient) Kind() string             { return "test.patient" }
func (patient) Consistency() Consistency { return ReadDelayed }

type eager struct{ note }

func (eager) Kind() string             { return "test.eager" }
func (eager) Consistency() Consistency { return ReadAlways }

// A job that would rather wait waits for a replica, without a slot and without an attempt, while others run.
func TestDelayedReads(t *testing.T) {
	t.Parallel()
	q, rdb := fresh("patient"), client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q, Rate: Rate{Max: 100, Per: time.Hour}})
	replicas := new(lagging)
	w := newWorker(t, j, &WorkerOptions{Concurrency: 1, Replicas: replicas})
	ran := make(chan string, 3)
	Handle(w, func(ctx context.Context, _ patient) error {
		if n, _ := asynq.GetRetryCount(ctx); n != 0 {
			t.Errorf("waiting has cost %d attempts", n)
		}
		ran <- "patient"
		return nil
	})
	Handle(w, func(context.Context, note) error { ran <- "note"; return nil })
	ctx, mark := scaleaware.WithWatermark(t.Context())
	mark.Raise(scaleaware.Token{System: 7, Timeline: 1, LSN: 9})
	if _, err := j.Enqueue(ctx, patient{}, On(q), MaxRetry(0)); err != nil {
		t.Fatal(err)
	}
	start(t, w)
	eventually(t, 5*time.Second, "it waits", func() bool { return status(t, j, q).Retrying == 1 })
	enqueue(t, j, q, 1)
	if first := <-ran; first != "note" {
		t.Errorf("%s ran first", first)
	}
	replicas.caught.Store(true)
	if second := <-ran; second != "patient" {
		t.Errorf("%s ran second", second)
	}
	eventually(t, 5*time.Second, "all are done", func() bool { s := status(t, j, q); return s.Waiting+s.Active+s.Retrying == 0 })
	if s := status(t, j, q); s.Failed != 0 {
		t.Errorf("waiting failed a job: %+v", s)
	}
	if n := rdb.LLen(t.Context(), ownKey(q, "starts")).Val(); n != 2 {
		t.Errorf("%d starts are counted of two jobs", n)
	}
	// It does not wait for ever.
	if wait := w.awaits(ctx, q, "x", ReadDelayed, scaleaware.Tokens{{System: 7, Timeline: 1, LSN: 9}}); wait != 0 {
		t.Errorf("caught up, and it waits %v", wait)
	}
	replicas.caught.Store(false)
	for range mostPauses {
		if w.awaits(ctx, q, "x", ReadDelayed, scaleaware.Tokens{{System: 7, Timeline: 1, LSN: 9}}) == 0 {
			t.Fatal("it does not wait")
		}
	}
	if wait := w.awaits(ctx, q, "x", ReadDelayed, scaleaware.Tokens{{System: 7, Timeline: 1, LSN: 9}}); wait != 0 {
		t.Errorf("after %d pauses it waits %v more", mostPauses, wait)
	}
}

// A job that must see everything is given the position of the moment when it starts.
func TestAlwaysReads(t *testing.T) {
	t.Parallel()
	q := fresh("eager")
	db := &atPosition{}
	j := newJobs(t, client(t, single.Get(t).Addrs()), &Options{Outbox: db}, Queue{Name: q})
	w := newWorker(t, j, nil)
	got := make(chan scaleaware.Tokens, 1)
	Handle(w, func(ctx context.Context, _ eager) error {
		tokens, err := scaleaware.WatermarkFrom(ctx).Written(ctx)
		got <- tokens
		return err
	})
	if _, err := j.Enqueue(t.Context(), eager{}, On(q)); err != nil {
		t.Fatal(err)
	}
	db.lsn.Store(42) // somebody commits before the handler starts
	start(t, w)
	if tokens := <-got; tokens.For(7).LSN != 42 {
		t.Errorf("the handler's reads see %v, want all up to 42", tokens)
	}

	for name, register := range map[string]func(w *Worker){
		"Outbox":   func(w *Worker) { Handle(w, func(context.Context, eager) error { return nil }) },
		"Replicas": func(w *Worker) { Handle(w, func(context.Context, patient) error { return nil }) },
	} {
		func() {
			defer func() {
				if x := recover(); x == nil || !strings.Contains(x.(string), name) {
					t.Errorf("without %s: %v", name, x)
				}
			}()
			register(newWorker(t, newJobs(t, client(t, []string{"127.0.0.1:1"}), nil, Queue{Name: q}), nil))
		}()
	}
}

type atPosition struct {
	Outbox
	lsn atomic.Uint64
}

func (*atPosition) System() uint64 { return 7 }

func (a *atPosition) Position(context.Context) (scaleaware.Token, error) {
	return scaleaware.Token{System: 7, Timeline: 1, LSN: scaleaware.LSN(a.lsn.Load())}, nil
}

// The outbox takes transactions of database/sql, too.
func TestEnqueueInSQLTx(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	q := fresh("sql")
	outbox := pool(t)
	j := newJobs(t, client(t, single.Get(t).Addrs()), &Options{Outbox: outbox, OutboxInterval: 5 * time.Millisecond}, Queue{Name: q})
	if err := j.EnsureOutbox(ctx); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", outbox.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i, commit := range []bool{true, false} {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.EnqueueTx(ctx, SQLTx(tx), note{N: i}, ID("0190a1d0-0000-7000-8000-00000000000"+string(rune('0'+i)))); err != nil {
			t.Fatal(err)
		}
		if commit {
			err = tx.Commit()
		} else {
			err = tx.Rollback()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	start(t, j)
	eventually(t, 10*time.Second, "the committed one is there", func() bool { return status(t, j, q).Waiting == 1 })
}

func mustTx(t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	return tx
}

// A transaction of database/sql hears of a row that is there already.
func TestSQLTxTellsOfADuplicate(t *testing.T) {
	t.Parallel()
	ctx, db := t.Context(), pool(t)
	j := newJobs(t, client(t, single.Get(t).Addrs()), &Options{Outbox: db}, Queue{Name: fresh("sqltwice")})
	if err := j.EnsureOutbox(ctx); err != nil {
		t.Fatal(err)
	}
	std, err := sql.Open("pgx", db.Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	defer std.Close()
	tx := mustTx(t, std)
	const id = "0190a1d0-0000-7000-8000-000000000000"
	for _, want := range []error{nil, ErrExists} {
		if err := j.EnqueueTx(ctx, SQLTx(tx), note{}, ID(id)); !errors.Is(err, want) {
			t.Errorf("EnqueueTx = %v, want %v", err, want)
		}
	}
}
