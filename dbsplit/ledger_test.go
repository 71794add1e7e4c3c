package dbsplit_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// ledger is a table of the numbers that writers were given, and what each of them was told. It has no key, so that a
// second application shows, and is no error.
type ledger struct {
	ctx     context.Context
	halt    context.CancelFunc
	writers sync.WaitGroup

	mu      sync.Mutex
	entries []entry
	next    int
}

type entry struct {
	id           int
	begun, ended time.Time
	err          error
}

const insertEntry = "insert into ledger values ($1)"

// ways are all that pgx's callers have to write with.
var ways = map[string]func(ctx context.Context, db *dbsplit.DB, id int) error{
	"Exec": func(ctx context.Context, db *dbsplit.DB, id int) error {
		_, err := db.Exec(ctx, insertEntry, id)
		return err
	},
	"QueryRow": func(ctx context.Context, db *dbsplit.DB, id int) error {
		return db.QueryRow(ctx, insertEntry+" returning id", id).Scan(nil)
	},
	"Query": func(ctx context.Context, db *dbsplit.DB, id int) error {
		rows, err := db.Query(ctx, insertEntry+" returning id", id)
		if err == nil {
			_, err = pgx.CollectRows(rows, pgx.RowTo[int])
		}
		return err
	},
	"InTx": func(ctx context.Context, db *dbsplit.DB, id int) error {
		return db.InTx(ctx, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, insertEntry, id); return err })
	},
	"Begin": func(ctx context.Context, db *dbsplit.DB, id int) error {
		tx, err := db.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, insertEntry, id); err != nil {
			return err
		}
		return tx.Commit(ctx)
	},
	"CopyFrom": func(ctx context.Context, db *dbsplit.DB, id int) error {
		_, err := db.CopyFrom(ctx, pgx.Identifier{"ledger"}, []string{"id"}, pgx.CopyFromRows([][]any{{id}}))
		return err
	},
	"SendBatch": func(ctx context.Context, db *dbsplit.DB, id int) error {
		var b pgx.Batch
		b.Queue(insertEntry, id)
		b.Queue("select 1")
		return db.SendBatch(ctx, &b).Close()
	},
	"SendBatch, read": func(ctx context.Context, db *dbsplit.DB, id int) error {
		var b pgx.Batch
		b.Queue(insertEntry, id)
		results := db.SendBatch(ctx, &b)
		_, err := results.Exec()
		return errors.Join(err, results.Close())
	},
}

// openLedger makes the table.
func openLedger(t testing.TB, db *dbsplit.DB) *ledger {
	t.Helper()
	exec(t, db, "create table ledger (id int)")
	b := new(ledger)
	b.ctx, b.halt = context.WithCancel(context.Background())
	t.Cleanup(b.stop)
	return b
}

// write starts n writers for each way, and for those of database/sql.
func (b *ledger) write(t testing.TB, db *dbsplit.DB, n int) {
	t.Helper()
	all := maps.Clone(ways)
	handle := openSQL(t, db.Connector())
	all["sql.DB"] = func(ctx context.Context, _ *dbsplit.DB, id int) error {
		_, err := handle.ExecContext(ctx, insertEntry, id)
		return err
	}
	all["sql.Tx"] = func(ctx context.Context, _ *dbsplit.DB, id int) error {
		tx, err := handle.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, insertEntry, id); err != nil {
			return err
		}
		return tx.Commit()
	}
	t.Cleanup(b.stop) // before the handle is closed
	for _, way := range all {
		for range n {
			b.writers.Go(func() {
				tick := time.NewTicker(2 * time.Millisecond) // leaves the processor to others
				defer tick.Stop()
				for ; b.ctx.Err() == nil; <-tick.C {
					e := entry{id: b.number(), begun: time.Now()}
					ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
					e.err = way(ctx, db, e.id)
					cancel()
					e.ended = time.Now()
					b.note(e)
				}
			})
		}
	}
}

func (b *ledger) number() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return b.next
}

func (b *ledger) note(e entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries = append(b.entries, e)
}

func (b *ledger) stop() { b.halt(); b.writers.Wait() }

// good counts the writes that were acknowledged.
func (b *ledger) good() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		if e.err == nil {
			n++
		}
	}
	return n
}

// progress waits for n acknowledged writes more.
func (b *ledger) progress(t testing.TB, db *dbsplit.DB, n int) {
	t.Helper()
	until := b.good() + n
	await(t, db, "good writes", func() bool { return b.good() >= until })
}

// firstAfter returns when the first good write ended that did so after then; zero if there is none.
func (b *ledger) firstAfter(then time.Time) (first time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		if e.err == nil && e.ended.After(then) && (first.IsZero() || e.ended.Before(first)) {
			first = e.ended
		}
	}
	return first
}

// settle compares what the writers were told with what is there. What was acknowledged is there once, at least when it began
// after since; what has an unknown outcome at most once; what failed in any other way is not.
func (b *ledger) settle(t testing.TB, db *dbsplit.DB, since time.Time) (good, unknown, failed int) {
	t.Helper()
	b.stop()
	found := make(map[int]int)
	check := func(conn *pgxpool.Conn) error {
		rows, err := conn.Query(b.background(t), "select id from ledger")
		if err != nil {
			return err
		}
		id := 0
		_, err = pgx.ForEachRow(rows, []any{&id}, func() error { found[id]++; return nil })
		return err
	}
	must(t, db.AcquireFunc(b.background(t), check))
	for _, e := range b.entries {
		n := found[e.id]
		switch {
		case n > 1:
			t.Errorf("write %d was applied %d times", e.id, n)
		case errors.Is(e.err, dbsplit.ErrOutcomeUnknown):
			unknown++
		case e.err == nil:
			if good++; n == 0 && e.begun.After(since) {
				t.Errorf("write %d was acknowledged, and is not there", e.id)
			}
		default:
			if failed++; failed <= 3 {
				t.Logf("write %d failed: %v", e.id, e.err)
			}
			if n > 0 {
				t.Errorf("write %d failed with %v, and is there", e.id, e.err)
			}
		}
	}
	t.Logf("%d writes were acknowledged, %d have an unknown outcome, %d failed", good, unknown, failed)
	return good, unknown, failed
}

func (b *ledger) background(t testing.TB) context.Context { return within(t, 30*time.Second) }
