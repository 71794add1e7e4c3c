package faultconn_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/faultconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet is how long a test listens before it says that nothing arrives.
const quiet = 150 * time.Millisecond

// echo is a server that sends back what it receives and reports how each of its connections ended.
type echo struct {
	listener net.Listener
	ended    chan error // nil is FIN
	conns    chan net.Conn
}

func startEcho(t *testing.T) *echo {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{listener: listener, ended: make(chan error, 16), conns: make(chan net.Conn, 16)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			e.conns <- conn
			wg.Go(func() {
				_, err := io.Copy(conn, conn)
				e.ended <- err
				conn.(*net.TCPConn).CloseWrite()
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		for len(e.conns) > 0 {
			(<-e.conns).Close()
		}
		wg.Wait()
	})
	return e
}

func startProxy(t *testing.T) (*faultconn.Proxy, *echo) {
	t.Helper()
	e := startEcho(t)
	p, err := faultconn.New(e.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p, e
}

func dial(t *testing.T, p *faultconn.Proxy) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", p.Addr(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatalf("write %q: %v", text, err)
	}
}

// receive reads n bytes within the time; the error is net's.
func receive(conn net.Conn, n int, within time.Duration) (string, error) {
	conn.SetReadDeadline(time.Now().Add(within))
	buffer := make([]byte, n)
	got, err := io.ReadFull(conn, buffer)
	return string(buffer[:got]), err
}

func wantEcho(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	send(t, conn, text)
	if got, err := receive(conn, len(text), 5*time.Second); got != text {
		t.Fatalf("echo of %q = %q, %v", text, got, err)
	}
}

func wantQuiet(t *testing.T, conn net.Conn) {
	t.Helper()
	if got, err := receive(conn, 1, quiet); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("want silence, got %q, %v", got, err)
	}
}

func wantEnd(t *testing.T, conn net.Conn, want error) {
	t.Helper()
	if got, err := receive(conn, 1, 5*time.Second); !errors.Is(err, want) {
		t.Fatalf("want the connection to end with %v, got %q, %v", want, got, err)
	}
}

func (e *echo) wantEnd(t *testing.T, want error) {
	t.Helper()
	select {
	case err := <-e.ended:
		if !errors.Is(err, want) {
			t.Fatalf("the server's connection ended with %v, want %v", err, want)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the server's connection did not end")
	}
}

func (e *echo) wantOpen(t *testing.T) {
	t.Helper()
	select {
	case err := <-e.ended:
		t.Fatalf("the server's connection ended with %v, want it open", err)
	case <-time.After(quiet):
	}
}

func TestForwardsAndHalfCloses(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	big := make([]byte, 1<<20)
	go conn.Write(big)
	if _, err := receive(conn, len(big), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	send(t, conn, "last words")
	conn.CloseWrite()
	e.wantEnd(t, nil)
	rest, err := io.ReadAll(conn)
	if string(rest) != "last words" || err != nil {
		t.Fatalf("after half close: %q, %v", rest, err)
	}
	if p.Accepted() != 1 {
		t.Errorf("Accepted = %d, want 1", p.Accepted())
	}
}

func TestResetOfOneSideReachesTheOther(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	conn.SetLinger(0)
	conn.Close()
	e.wantEnd(t, syscall.ECONNRESET)
}

func TestTargetDownResets(t *testing.T) {
	p, e := startProxy(t)
	e.listener.Close()
	conn, err := net.DialTimeout("tcp", p.Addr(), time.Second)
	if err == nil { // the reset may already be the answer to the dial
		defer conn.Close()
		_, err = receive(conn, 1, 5*time.Second)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("want a reset, got %v", err)
	}
}

func TestRetarget(t *testing.T) {
	p, e := startProxy(t)
	old := dial(t, p)
	wantEcho(t, old, "a")
	other := startEcho(t)
	e.listener.Close()
	p.Retarget(other.listener.Addr().String())
	wantEcho(t, dial(t, p), "b")
	wantEcho(t, old, "c")
}

func TestNewRejectsABadTarget(t *testing.T) {
	if _, err := faultconn.New("nowhere"); err == nil {
		t.Fatal("want an error for a target without a port")
	}
}

func TestCloseWithOpenConnections(t *testing.T) {
	p, e := startProxy(t)
	conn := dial(t, p)
	wantEcho(t, conn, "a")
	p.Stall(faultconn.Both)
	send(t, conn, "held")
	p.Close()
	p.Close()
	wantEnd(t, conn, syscall.ECONNRESET)
	e.wantEnd(t, syscall.ECONNRESET)
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial after Close: %v", err)
	}
	if p.Open() != 0 {
		t.Errorf("Open = %d after Close", p.Open())
	}
}
