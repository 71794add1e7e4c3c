package dbsplit

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

// Writes have moved, and the snapshot still shows the promoted server as a replica: what it had replayed is no position of
// the primary.
func TestPositionOfAServerJustPromoted(t *testing.T) {
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	nodes := db.members()
	db.observe(nodes[0], time.Now(), position{at: at(1, 100)}, nil)
	mark := time.Now()
	db.observe(nodes[1], time.Now(), position{recovering: true, at: at(1, 90)}, nil)
	if err := db.moveWriter(nodes[0], nodes[1]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if got, err := db.sample(ctx, nodes[1], mark); err == nil {
		t.Errorf("it stands at %v", got)
	}
	db.publish()
	db.observe(nodes[1], time.Now(), position{at: at(2, 95)}, nil)
	if got, err := db.sample(t.Context(), nodes[1], mark); err != nil || got != at(2, 95) {
		t.Errorf("after its probe it stands at %v, %v", got, err)
	}
}

// promotable is a DB whose primary has gone. The first attempt to connect to its replica is counted, and ends ctx: there is no server.
func promotable(t *testing.T, wait time.Duration) (ctx context.Context, db *DB, nodes []*node, went *atomic.Int64) {
	t.Helper()
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x"}}, &Options{FailoverWait: wait})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	went, nodes = new(atomic.Int64), db.members()
	nodes[1].config.ConnConfig.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		went.Add(1)
		cancel()
		return nil, errors.New("there is no server")
	}
	db.observe(nodes[0], time.Now(), position{at: at(1, 100)}, nil)
	db.observe(nodes[1], time.Now(), position{recovering: true, at: at(1, 100)}, nil)
	db.observe(nodes[0], time.Now(), position{}, errSilent)
	return ctx, db, nodes, went
}

// Writes move while a read for which only the primary is left waits for a replica: it goes to the new primary, also without
// patience for one.
func TestWritesMoveWhileAReadForThePrimaryWaits(t *testing.T) {
	for _, wait := range []time.Duration{time.Minute, -1} {
		ctx, db, nodes, went := promotable(t, wait)
		ctx, w := scaleaware.WithWatermark(ctx)
		w.Raise(at(2, 100)) // so it waits for who has been promoted
		result := make(chan error, 1)
		go func() {
			a := attempt{not: 1 << nodes[1].index, last: true}
			_, err := db.Read(WaitForReplica(time.Minute)).lease(ctx, &a)
			result <- err
		}()
		for db.waiters.Load() == 0 && len(result) == 0 {
			runtime.Gosched()
		}
		db.observe(nodes[1], time.Now(), position{at: at(2, 100)}, nil)
		if err := <-result; went.Load() == 0 {
			t.Errorf("with a patience of %v it did not go to the new primary: %v", wait, err)
		}
	}
}

// A read that a replica has refused goes there again once writes have moved there, also before the snapshot shows that.
func TestReadForThePrimaryOfAServerJustPromoted(t *testing.T) {
	ctx, db, nodes, went := promotable(t, -1)
	if err := db.moveWriter(nodes[0], nodes[1]); err != nil {
		t.Fatal(err)
	}
	a := attempt{not: 1 << nodes[1].index, last: true}
	if _, err := db.Read().lease(ctx, &a); went.Load() == 0 {
		t.Errorf("it did not go to the new primary: %v", err)
	}
}
