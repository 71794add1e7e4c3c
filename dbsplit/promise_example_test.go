package dbsplit_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
)

// The promises of the package documentation, in its order, each on a primary with two replicas.

// A write whose connection is lost before the answer is not sent again.
func ExampleDB_Exec_outcomeUnknown() {
	example(nil, func(ctx context.Context, db *dbsplit.DB, _ replicas) {
		_, err := db.Exec(ctx, "insert into leads select 'Ada' from pg_terminate_backend(pg_backend_pid())")
		fmt.Println(errors.Is(err, dbsplit.ErrOutcomeUnknown))
	})
	// Output: true
}

// What is sent through Read cannot write, on whichever node it lands.
func ExampleReader_Exec_write() {
	example(nil, func(ctx context.Context, db *dbsplit.DB, _ replicas) {
		for _, r := range []*dbsplit.Reader{db.Read(), db.Read(dbsplit.PreferPrimary())} {
			_, err := r.Exec(ctx, "insert into leads values ('Ada')")
			fmt.Println(errors.Is(err, dbsplit.ErrWriteInRead))
		}
	})
	// Output:
	// true
	// true
}

// Somebody else has just committed. Only RequireFresh is sure to see it.
func ExampleRequireFresh() {
	example(nil, func(ctx context.Context, db *dbsplit.DB, r replicas) {
		r.pause()
		exec := "insert into leads values ('Ada')"
		if _, err := db.Exec(ctx, exec); err != nil {
			log.Fatal(err)
		}
		fmt.Println(count(ctx, db.Read()), count(ctx, db.Read(dbsplit.RequireFresh())))
	})
	// Output: 0 1
}

// A bound that no replica keeps is kept by the primary, and by nobody when that is not to be asked.
func ExampleMaxStaleness_kept() {
	example(nil, func(ctx context.Context, db *dbsplit.DB, r replicas) {
		r.pause()
		if _, err := db.Exec(ctx, "insert into leads values ('Ada')"); err != nil {
			log.Fatal(err)
		}
		r.outdate(time.Second)
		bound := dbsplit.MaxStaleness(time.Second)
		fmt.Println(count(ctx, db.Read(bound, dbsplit.OnRoute(func(p dbsplit.Provenance) { fmt.Println(p.Role) }))))
		err := db.Read(bound, dbsplit.FallBack(dbsplit.FallbackNone)).QueryRow(ctx, "select 1").Scan(nil)
		fmt.Println(errors.Is(err, dbsplit.ErrNoNode))
	})
	// Output:
	// primary
	// 1
	// true
}

// A caller sees its own write, while no replica has it and when it comes back in another process.
func ExampleDB_InTx_readYourWrites() {
	example(nil, func(ctx context.Context, db *dbsplit.DB, r replicas) {
		r.pause()
		first, mark := scaleaware.WithWatermark(ctx)
		err := db.InTx(first, func(tx pgx.Tx) error {
			_, err := tx.Exec(first, "insert into leads values ('Ada')")
			return err
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(count(first, db.Read()))

		written, err := mark.Written(first) // what a session, a cookie or a job carries
		if err != nil {
			log.Fatal(err)
		}
		second, carried := scaleaware.WithWatermark(ctx)
		for _, token := range written {
			carried.Raise(token)
		}
		fmt.Println(count(second, db.Read()), count(ctx, db.Read())) // with the token, and without
	})
	// Output:
	// 1
	// 1 0
}

// One replica replays and one does not. Whoever has seen more never sees less.
func ExampleOptions_monotonicReads() {
	example(&dbsplit.Options{MonotonicReads: true}, func(ctx context.Context, db *dbsplit.DB, r replicas) {
		r.pauseOne()
		if _, err := db.Exec(ctx, "insert into leads values ('Ada')"); err != nil {
			log.Fatal(err)
		}
		r.await()
		backwards := 0
		for range 100 {
			caller, _ := scaleaware.WithWatermark(ctx)
			first := count(caller, db.Read())
			backwards += max(0, first-count(caller, db.Read()))
		}
		fmt.Println(backwards)
	})
	// Output: 0
}

// Who asks for nothing may see a state that is past, but none older than MaxStaleness, while the primary can serve instead.
func ExampleOptions_maxStaleness() {
	const bound = 5 * time.Second
	example(&dbsplit.Options{MaxStaleness: bound}, func(ctx context.Context, db *dbsplit.DB, r replicas) {
		r.pause()
		if _, err := db.Exec(ctx, "insert into leads values ('Ada')"); err != nil {
			log.Fatal(err)
		}
		fmt.Println(count(ctx, db.Read()))
		r.outdate(bound)
		fmt.Println(count(ctx, db.Read()))
	})
	// Output:
	// 0
	// 1
}

func count(ctx context.Context, r *dbsplit.Reader) (n int) {
	if err := r.QueryRow(ctx, "select count(*) from leads").Scan(&n); err != nil {
		log.Fatal(err)
	}
	return n
}

// replicas is how an example makes them lag.
type replicas struct {
	pause    func() // both stop replaying
	pauseOne func()
	await    func()                    // the other one has replayed everything
	outdate  func(bound time.Duration) // until the monitor knows that both are staler
}

// example runs f on the package's cluster, with an empty table leads.
func example(opts *dbsplit.Options, f func(ctx context.Context, db *dbsplit.DB, r replicas)) {
	var tb exampleTB
	defer tb.cleanup()
	c := shared.Get(&tb)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := dbsplit.Open(ctx, nodesOf(c, c.Database(&tb)), opts)
	check(err)
	defer db.Close()
	running, stop := context.WithCancel(ctx)
	var run sync.WaitGroup
	run.Go(func() { check(db.Run(running)) })
	defer run.Wait()
	defer stop()
	_, err = db.Exec(ctx, "create table leads (name text)")
	check(err)
	for _, s := range c.Servers()[1:] {
		check(s.WaitCaughtUp(ctx))
		defer s.ResumeReplay(context.Background()) //nolint:errcheck // when it was not paused
	}
	poll := func(holds func() bool) {
		for !holds() {
			check(ctx.Err())
			time.Sleep(2 * time.Millisecond)
		}
	}
	poll(func() bool { return fresh(db) == 2 })
	f(ctx, db, replicas{
		pause: func() {
			check(c.Replica(0).PauseReplay(ctx))
			check(c.Replica(1).PauseReplay(ctx))
		},
		pauseOne: func() { check(c.Replica(0).PauseReplay(ctx)) },
		await:    func() { check(c.Replica(1).WaitCaughtUp(ctx)) },
		outdate: func(bound time.Duration) {
			poll(func() bool { n := db.Nodes(); return n[1].Staleness > bound && n[2].Staleness > bound })
		},
	})
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// exampleTB serves examples, which have no testing.TB.
type exampleTB struct{ cleanups []func() }

func (*exampleTB) Helper()                           {}
func (*exampleTB) Failed() bool                      { return false }
func (*exampleTB) Logf(string, ...any)               {}
func (*exampleTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (*exampleTB) Skipf(format string, args ...any)  { panic(fmt.Sprintf(format, args...)) }
func (tb *exampleTB) Cleanup(f func())               { tb.cleanups = append(tb.cleanups, f) }
func (tb *exampleTB) cleanup() {
	for _, f := range tb.cleanups {
		f()
	}
}
