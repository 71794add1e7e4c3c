package dbsplit_test

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A frozen replica accepts connections and never answers.
func TestFrozenReplica(t *testing.T) {
	db, c, _ := settled(t, nil)
	ctx := within(t, 60*time.Second)
	frozen := c.Replica(0)
	t.Cleanup(frozen.Thaw)
	port := func(ctx context.Context) (n int, err error) {
		err = db.Read().QueryRow(ctx, "select inet_server_port()").Scan(&n)
		return n, err
	}
	watch, err := frozen.Connect(ctx, "postgres")
	must(t, err)
	defer watch.Close(context.Background())
	there := get[int](t, ctx, watch, "select inet_server_port()")

	type end struct {
		err  error
		late time.Duration
	}
	ends := make(chan end)
	const reads, patience = 4, 2500 * time.Millisecond
	for range reads { // they spread over both replicas
		go func() {
			limited, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			deadline, _ := limited.Deadline()
			err := db.Read().QueryRow(limited, "-- name: InFlight :one\nselect pg_sleep(30)::text").Scan(nil)
			ends <- end{err, time.Since(deadline)}
		}()
	}
	await(t, db, "a read on the replica", func() bool {
		return get[bool](t, ctx, watch, "select exists (select from pg_stat_activity where query like '-- name: InFlight%' and state = 'active')")
	})
	frozen.Freeze()
	begun := time.Now()
	await(t, db, "its ejection", func() bool { return !db.Nodes()[1].Up })
	took := time.Since(begun)
	t.Logf("it was ejected after %v, the goal is 1.5 s", took)
	if took > 3*time.Second { // leaves room for a busy machine
		t.Errorf("it was ejected after %v", took)
	}
	for range 50 {
		quick, cancel := context.WithTimeout(ctx, 2*time.Second)
		if n, err := port(quick); err != nil || n == there {
			t.Errorf("a read after the ejection: port %d, %v", n, err)
		}
		cancel()
	}
	for range reads {
		e := <-ends
		if !errors.Is(e.err, context.DeadlineExceeded) || e.late > 500*time.Millisecond {
			t.Errorf("a read in flight ended %v after its deadline with %v", e.late, e.err)
		}
	}
	frozen.Thaw()
	await(t, db, "its return", func() bool {
		n, err := port(ctx)
		must(t, err)
		return n == there
	})
}
