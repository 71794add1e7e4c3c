package main

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// An answer that is later than a read's deadline is never read, however busy the machine is: what came in time would be a faster Redis.
func TestLateAnswersMissTheirDeadline(t *testing.T) {
	const conns, late = 400, 20 * time.Millisecond
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("x"))
			defer conn.Close()
		}
	}()
	network := newSlowNetwork(nil)
	network.delay(time.Minute)
	defer network.heal()
	var group sync.WaitGroup
	for range conns {
		conn, err := network.dial(context.Background(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			defer conn.Close()
			for range 10 {
				_ = conn.SetDeadline(time.Now().Add(late))
				if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("read %d bytes, %v", n, err)
					return
				}
			}
		})
	}
	group.Wait()
}
