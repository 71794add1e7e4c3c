package dbsplit

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := door{slow: time.Second}
		var in, out atomic.Int64
		enter := func() {
			go func() {
				if d.enter(t.Context()) == nil {
					in.Add(1)
				} else {
					out.Add(1)
				}
			}()
			synctest.Wait()
		}
		expect := func(what string, wantIn, wantOut int64) {
			t.Helper()
			synctest.Wait()
			if in.Load() != wantIn || out.Load() != wantOut {
				t.Errorf("%s: %d in and %d out, want %d and %d", what, in.Load(), out.Load(), wantIn, wantOut)
			}
		}
		enter()
		enter()
		expect("two at once", 2, 0)
		time.Sleep(time.Second)
		enter()
		expect("the first is slow", 2, 0)
		d.leave(errors.New("no"))
		expect("it has failed", 2, 1)
		enter()
		expect("the second is still there", 2, 1)
		d.leave(errors.New("no"))
		expect("it has failed, too", 2, 2)
		enter()
		enter()
		expect("one tries", 3, 2)
		d.leave(nil)
		expect("it is let in, and so are all", 4, 2)
		enter()
		expect("open again", 5, 2)

		d = door{slow: time.Second}
		if err := d.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := d.enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("enter = %v, want the caller's deadline", err)
		}
	})
}

// A server that accepts connections and says nothing, as one that hangs, does not find hundreds of them when it goes on.
func TestSilentServerIsNotStormed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var accepted atomic.Int64
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			accepted.Add(1)
		}
	})
	defer serving.Wait()
	defer listener.Close()
	const most = 20
	db, err := Open(t.Context(), Nodes{Primary: "postgres://u@" + listener.Addr().String() + "/d?sslmode=disable"}, &Options{MaxConns: most, ConnectTimeout: 400 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var callers sync.WaitGroup
	for range 2 * most {
		callers.Go(func() {
			for ctx.Err() == nil {
				one, done := context.WithTimeout(ctx, 100*time.Millisecond)
				_, _ = db.Exec(one, "select 1")
				done()
			}
		})
	}
	callers.Wait()
	// A pool's full at first, and then one for each ConnectTimeout.
	if n := accepted.Load(); n > 2*most {
		t.Errorf("%d connections in four seconds, want at most %d", n, 2*most)
	}
}
