package faultconn_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/faultconn"
)

func TestDelayPerDirection(t *testing.T) {
	for name, dir := range map[string]faultconn.Direction{"to server": faultconn.ToServer, "to client": faultconn.ToClient} {
		t.Run(name, func(t *testing.T) {
			p, _ := startProxy(t)
			conn := dial(t, p)
			wantEcho(t, conn, "a")
			p.Delay(dir, 200*time.Millisecond)
			start := time.Now()
			wantEcho(t, conn, "b")
			if took := time.Since(start); took < 200*time.Millisecond {
				t.Errorf("took %v, want at least 200ms", took)
			}
			p.Delay(dir, time.Hour)
			send(t, conn, "c")
			wantQuiet(t, conn)
			p.Delay(dir, 0) // releases what is under way
			if got, err := receive(conn, 1, 5*time.Second); got != "c" {
				t.Fatalf("got %q, %v", got, err)
			}
		})
	}
}

func TestDelayDoesNotLimitThroughput(t *testing.T) {
	p, _ := startProxy(t)
	conn := dial(t, p)
	p.Delay(faultconn.ToServer, 100*time.Millisecond)
	start := time.Now()
	for range 20 { // one after the other would take two seconds
		send(t, conn, "x")
	}
	if _, err := receive(conn, 20, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("20 bytes sent at once took %v", took)
	}
}

func TestBandwidth(t *testing.T) {
	p, _ := startProxy(t)
	conn := dial(t, p)
	p.Bandwidth(faultconn.ToClient, 100_000)
	sent := bytes.Repeat([]byte("0123456789"), 5_000)
	start := time.Now()
	go conn.Write(sent)
	got, err := receive(conn, len(sent), 20*time.Second)
	if err != nil || got != string(sent) {
		t.Fatalf("received %d bytes of %d, %v", len(got), len(sent), err)
	}
	if took := time.Since(start); took < 400*time.Millisecond || took > 5*time.Second {
		t.Errorf("50 kB at 100 kB/s took %v", took)
	}
}

func TestStallHoldsAndDelivers(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	p.Stall(faultconn.ToServer)
	send(t, conn, "held")
	conn.CloseWrite()
	wantQuiet(t, conn)
	e.wantOpen(t)
	p.Heal()
	if got, err := receive(conn, 4, 5*time.Second); got != "held" {
		t.Fatalf("after Heal %q, %v", got, err)
	}
	wantEnd(t, conn, io.EOF)
	e.wantEnd(t, nil)
}

func TestBlackholePerDirection(t *testing.T) {
	for name, dir := range map[string]faultconn.Direction{"to server": faultconn.ToServer, "to client": faultconn.ToClient} {
		t.Run(name, func(t *testing.T) {
			p, e := startProxy(t)
			conn := dial(t, p)
			wantEcho(t, conn, "a")
			p.Blackhole(dir)
			send(t, conn, "lost")
			wantQuiet(t, conn)
			e.wantOpen(t)
			fresh := dial(t, p) // accepted, and as silent
			send(t, fresh, "lost")
			wantQuiet(t, fresh)
			p.Heal()
			// A stream with a hole must not come alive again.
			wantEnd(t, conn, syscall.ECONNRESET)
			e.wantEnd(t, syscall.ECONNRESET)
			wantEcho(t, dial(t, p), "b")
		})
	}
}

func TestBlackholeSwallowsTheEnd(t *testing.T) {
	for name, linger := range map[string]int{"FIN": -1, "RST": 0} {
		t.Run(name, func(t *testing.T) {
			p, e := startProxy(t)
			conn := dial(t, p)
			wantEcho(t, conn, "a")
			p.Blackhole(faultconn.ToServer)
			conn.SetLinger(linger)
			conn.Close()
			e.wantOpen(t)
			p.Heal()
			e.wantEnd(t, syscall.ECONNRESET)
		})
	}
}

func TestBlackholeSwallowsTheResetThatAServersWriteMeets(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	server := <-e.conns
	defer server.Close()
	p.Blackhole(faultconn.ToServer)
	conn.SetLinger(0)
	conn.Close()
	for range 5 { // the proxy's own write fails from the second on
		send(t, server, "anybody there?")
		e.wantOpen(t)
	}
	p.Heal()
	e.wantEnd(t, syscall.ECONNRESET)
}

func TestBlackholeOfBothEndsStaysSilent(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	server := <-e.conns
	defer server.Close()
	p.Blackhole(faultconn.Both)
	conn.CloseWrite()
	server.(*net.TCPConn).CloseWrite()
	wantQuiet(t, conn)
	e.wantOpen(t)
	p.Heal()
	wantEnd(t, conn, syscall.ECONNRESET)
}

func TestCut(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	p.Cut()
	wantEnd(t, conn, io.EOF)
	e.wantEnd(t, nil)
	wantEcho(t, dial(t, p), "b")
}

func TestReset(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	p.Reset()
	wantEnd(t, conn, syscall.ECONNRESET)
	e.wantEnd(t, syscall.ECONNRESET)
	wantEcho(t, dial(t, p), "b")
}

func TestFinishOneDirection(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	p.Finish(faultconn.ToClient)
	wantEnd(t, conn, io.EOF)
	e.wantOpen(t)
	p.Finish(faultconn.ToServer)
	e.wantEnd(t, nil)
}

func TestHalfOpenKeepsTheClient(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	unused := dial(t, p)
	wantEcho(t, unused, "a")
	p.HalfOpen()
	e.wantEnd(t, nil)
	send(t, conn, "into the void")
	wantQuiet(t, conn)
	wantEcho(t, dial(t, p), "b") // new connections are well
	p.Heal()
	wantEnd(t, conn, syscall.ECONNRESET)
	wantEnd(t, unused, syscall.ECONNRESET)
}

func TestOrphanKeepsTheServer(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	server := <-e.conns
	defer server.Close()
	p.Orphan()
	wantEnd(t, conn, io.EOF)
	send(t, server, "nobody listens")
	e.wantOpen(t)
	p.Heal()
	e.wantEnd(t, syscall.ECONNRESET)
}

func TestHalfOpenEndsWhenTheClientLeaves(t *testing.T) {
	p, _ := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	p.HalfOpen()
	conn.Close()
	for deadline := time.Now().Add(5 * time.Second); p.Open() > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the link outlived both of its sides")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestRefuse(t *testing.T) {
	p, _ := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	for range 3 {
		p.Refuse()
		p.Refuse()
		if _, err := net.DialTimeout("tcp", p.Addr(), time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial = %v, want connection refused", err)
		}
		wantEcho(t, conn, "still here")
		p.Heal()
		p.Heal()
		wantEcho(t, dial(t, p), "back")
	}
}

func TestStalledSenderBlocks(t *testing.T) {
	p, _ := startProxy(t)
	conn := dial(t, p)
	p.Stall(faultconn.ToServer)
	conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	var err error
	block := make([]byte, 1<<20)
	for range 64 {
		if _, err = conn.Write(block); err != nil {
			break
		}
		conn.SetWriteDeadline(time.Now().Add(time.Second))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("64 MiB into a stalled direction: %v, want a write that blocks", err)
	}
}
