package dbsplit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/faultconn"
)

// patience is what callers in these tests have. Nobody may need it: the monitor gives up a silent node after a second.
const patience = 15 * time.Second

// Reads in flight on a replica that falls silent are answered by another node, without their callers' deadlines.
func TestReadsOnASilentReplica(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	for name, fault := range map[string]func(p *faultconn.Proxy){
		"half-open":   (*faultconn.Proxy).HalfOpen,
		"black-holed": func(p *faultconn.Proxy) { p.Blackhole(faultconn.Both) },
		"answerless":  func(p *faultconn.Proxy) { p.Blackhole(faultconn.ToClient) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := c.Database(t)
			p, through := proxied(t, c.Replica(0), database)
			db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{through, c.Replica(1).URL(database)}}, nil)
			await(t, db, "fresh replicas", func() bool { return fresh(db) == 2 })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var reads, longest atomic.Int64
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					for ctx.Err() == nil {
						limited, cancel := context.WithTimeout(context.Background(), patience)
						begun := time.Now()
						var err error
						if i%2 == 0 {
							err = db.Read().QueryRow(limited, "select 1").Scan(nil)
						} else {
							rows, _ := db.Read().Query(limited, "select generate_series(1, 3)")
							_, err = pgx.CollectRows(rows, pgx.RowTo[int])
						}
						cancel()
						if err != nil {
							t.Errorf("after %v: %v", time.Since(begun), err)
						}
						took := int64(time.Since(begun))
						for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
						}
						reads.Add(1)
						time.Sleep(time.Millisecond) // leave the processor to others
					}
				})
			}
			progress := func(n int64) {
				until := reads.Load() + n
				await(t, db, "reads", func() bool { return reads.Load() >= until })
			}
			progress(50)
			fault(p)
			broken := time.Now()
			await(t, db, "the ejection", func() bool { return !db.Nodes()[1].Up })
			t.Logf("it was ejected after %v, the goal is 1.5 s", time.Since(broken))
			progress(50)
			p.Heal()
			await(t, db, "its return", func() bool { return fresh(db) == 2 })
			progress(50)
			cancel()
			wg.Wait()
			t.Logf("the longest of %d reads took %v", reads.Load(), time.Duration(longest.Load()))
			if d := time.Duration(longest.Load()); d > patience/2 || d < 500*time.Millisecond {
				t.Errorf("the longest read took %v: it was not in flight, or nobody ended it", d)
			}
		})
	}
}

// A node that falls silent in the middle of an answer: what was read is not the whole.
func TestSilenceInTheMiddleOfRows(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Replica(0), database)
	db := run(t, dbsplit.Nodes{Primary: c.Primary().URL(database), Replicas: []string{through}}, nil)
	await(t, db, "a fresh replica", func() bool { return fresh(db) == 1 })
	ctx := within(t, patience)
	const all = 2_000_000
	rows, err := db.Read().Query(ctx, fmt.Sprintf("select generate_series(1, %d)", all))
	must(t, err)
	defer rows.Close()
	n := 0
	for rows.Next() {
		if n++; n == 1 {
			p.Blackhole(faultconn.ToClient)
		}
	}
	p.Heal() // lets the requests to cancel end, which Close waits for
	if n == 0 || n == all {
		t.Fatalf("%d rows: this test tests nothing", n)
	}
	if err := rows.Err(); err == nil || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after %d rows: %v", n, err)
	}
}

// Writes in flight on a primary that falls silent.
func TestWritesOnASilentPrimary(t *testing.T) {
	t.Parallel()
	c := shared.Get(t)
	database := c.Database(t)
	p, through := proxied(t, c.Primary(), database)
	db := run(t, dbsplit.Nodes{Primary: through}, nil)
	direct := open(t, dbsplit.Nodes{Primary: c.Primary().URL(database)}, nil)
	await(t, db, "the primary", func() bool { return db.Nodes()[0].Up })
	notes(t, direct)
	rows := 0
	for _, name := range []string{"Exec", "InTx"} {
		await(t, db, "the primary", func() bool { return db.Nodes()[0].Up && db.Ping(t.Context()) == nil })
		limited, cancel := context.WithTimeout(t.Context(), patience)
		rows++
		if err := swallowed[name](limited, p, db); !errors.Is(err, dbsplit.ErrOutcomeUnknown) || limited.Err() != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		p.Heal()
	}
	ctx := within(t, 30*time.Second)
	if n := get[int](t, ctx, direct, "select count(*)::int from notes"); n != rows {
		t.Errorf("%d rows after %d writes", n, rows)
	}

	await(t, db, "the primary", func() bool { return db.Nodes()[0].Up && db.Ping(ctx) == nil })
	tx, err := db.Begin(ctx)
	must(t, err)
	exec(t, tx, "insert into notes values (1)")
	p.Blackhole(faultconn.Both)
	await(t, db, "the silence", func() bool { return !db.Nodes()[0].Up && tx.Conn().PgConn().Conn().SetDeadline(time.Time{}) != nil })
	if err := tx.Commit(ctx); err == nil || errors.Is(err, dbsplit.ErrOutcomeUnknown) {
		t.Errorf("a commit that could not be sent: %v", err)
	}
	p.Heal()
}
