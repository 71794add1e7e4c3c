package admin_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

// listening serves h as a program would, and dials it.
func listening(t *testing.T, h http.Handler) (dial func() net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- admin.Serve(ctx, listener, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		return conn
	}
}

// answers reads the statuses of all answers until the server closes the connection.
func answers(conn net.Conn) (statuses []int) {
	in := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		statuses = append(statuses, resp.StatusCode)
	}
}

// Requests that two parsers may take apart differently, or that name another host: nothing runs that the listener was not
// clearly asked for by whoever has the token, and nothing behind a request counts as the next one.
func TestRequestsInDisguise(t *testing.T) {
	var ran atomic.Int64
	pause := admin.Operation{Method: "POST", Path: "/pause", ID: "pause", Role: admin.Operator, Do: func(context.Context, *admin.Call) (any, error) {
		ran.Add(1)
		return nil, nil
	}}
	guarded := listening(t, mount(t, &admin.Options{Tokens: tokens(), WriteRate: 1e6}, pause))
	loopback := listening(t, mount(t, &admin.Options{AllowInsecureLoopback: true, WriteRate: 1e6}, pause))
	const token, host, hidden = "Authorization: Bearer " + operatorSecret + "\r\n", "Host: localhost\r\n", "POST /pause HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	long := strings.Repeat("x", 300<<10) // more than net/http reads of what a handler leaves
	for name, test := range map[string]struct {
		dial func() net.Conn
		sent string
		runs int64
		want string // all statuses
	}{
		"two lengths":                  {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Content-Length: 0\r\nContent-Length: 80\r\n\r\n" + hidden, 0, "[400]"},
		"two lengths in one":           {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Content-Length: 0, 80\r\n\r\n" + hidden, 0, "[400]"},
		"a negative length":            {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Content-Length: -1\r\n\r\n", 0, "[400]"},
		"a length with a sign":         {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Content-Length: +0\r\n\r\n", 0, "[400]"},
		"a huge length":                {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Content-Length: 99999999999999999999\r\n\r\n", 0, "[400]"},
		"length and chunks":            {guarded, "POST /pause HTTP/1.1\r\n" + host + token + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 5+len(hidden)) + hidden, 1, "[200 401]"},
		"chunks in disguise":           {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, 0, "[501]"},
		"chunks twice":                 {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, 0, "[501]"},
		"chunks, then identity":        {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden, 0, "[501]"},
		"a space before the colon":     {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Content-Length : 0\r\n\r\n" + hidden, 0, "[400]"},
		"a folded header":              {guarded, "POST /pause HTTP/1.1\r\n" + host + "Authorization: Bearer\r\n " + operatorSecret + "x\r\nConnection: close\r\n\r\n", 0, "[401]"},
		"a broken chunk":               {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + hidden, 0, "[400]"},
		"NUL in a header":              {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "X: a\x00b\r\n\r\n", 0, "[400]"},
		"no host":                      {guarded, "POST /pause HTTP/1.1\r\n" + token + "\r\n", 0, "[400]"},
		"two hosts":                    {guarded, "POST /pause HTTP/1.1\r\n" + host + "Host: evil.example\r\n" + token + "\r\n", 0, "[400]"},
		"a host with a path":           {guarded, "POST /pause HTTP/1.1\r\nHost: localhost/x\r\n" + token + "\r\n", 0, "[400]"},
		"another host in the target":   {loopback, "POST http://evil.example/pause HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", 0, "[403]"},
		"this host in the target":      {loopback, "POST http://localhost/pause HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 1, "[200]"}, // RFC 9112: the target counts
		"HTTP/1.0 without a host":      {loopback, "POST /pause HTTP/1.0\r\n\r\n", 0, "[403]"},
		"CONNECT":                      {loopback, "CONNECT localhost:3002 HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", 0, "[404]"},
		"a method in a header":         {loopback, "GET /pause HTTP/1.1\r\n" + host + "X-HTTP-Method-Override: POST\r\nConnection: close\r\n\r\n", 0, "[405]"},
		"a method in the query":        {loopback, "GET /pause?_method=POST HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", 0, "[405]"},
		"an upgrade":                   {loopback, "POST /pause HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nSec-Fetch-Site: cross-site\r\n\r\n", 0, "[403]"},
		"a request in a refused body":  {loopback, "POST /pause HTTP/1.1\r\n" + host + fmt.Sprintf("Sec-Fetch-Site: cross-site\r\nContent-Length: %d\r\n\r\n", len(hidden)) + hidden + "GET /livez HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n", 0, "[403 200]"},
		"one in a long refused body":   {loopback, "POST /pause HTTP/1.1\r\n" + host + fmt.Sprintf("Sec-Fetch-Site: cross-site\r\nContent-Length: %d\r\n\r\n", len(long)+len(hidden)) + long + hidden, 0, "[403]"},
		"one behind a body of no kind": {loopback, "POST /pause HTTP/1.1\r\n" + host + fmt.Sprintf("Content-Type: text/plain\r\nSec-Fetch-Site: cross-site\r\nContent-Length: %d\r\n\r\n", len(long)+len(hidden)) + hidden + long, 0, "[403]"},
		"a header of 100 kB":           {guarded, "POST /pause HTTP/1.1\r\n" + host + token + "X: " + strings.Repeat("x", 100<<10) + "\r\n\r\n", 0, "[431]"},
		"100,000 headers":              {guarded, "POST /pause HTTP/1.1\r\n" + host + token + strings.Repeat("X: y\r\n", 100_000) + "\r\n", 0, "[431]"},
		"a target of 100 kB":           {guarded, "POST /" + strings.Repeat("x", 100<<10) + " HTTP/1.1\r\n" + host + token + "\r\n", 0, "[431]"},
	} {
		t.Run(name, func(t *testing.T) {
			before := ran.Load()
			conn := test.dial()
			go func() { _, _ = io.WriteString(conn, test.sent) }() // the server may answer, and close, before it has all
			if got := fmt.Sprint(answers(conn)); got != test.want || ran.Load()-before != test.runs {
				t.Errorf("answered %s and ran %d times, want %s and %d", got, ran.Load()-before, test.want, test.runs)
			}
		})
	}
}

// On every route that writes, and on those that do not exist, a body that comes slowly or never ends is cut off, and so
// are headers; all at once they keep nobody else waiting.
func TestSlowBodiesOnEveryRoute(t *testing.T) {
	var ran atomic.Int64
	ops := sample()
	for i := range ops {
		do := ops[i].Do
		ops[i].Do = func(ctx context.Context, call *admin.Call) (any, error) {
			if call.Request.Method != "GET" {
				ran.Add(1)
			}
			return do(ctx, call)
		}
	}
	h := mount(t, &admin.Options{AllowInsecureLoopback: true, WriteRate: 1e6}, ops...)
	const limit = 300 * time.Millisecond
	h.ShortenBodies(limit)
	dial := listening(t, h)
	var all sync.WaitGroup
	drip := func(what, head, drop string, within time.Duration) {
		all.Go(func() {
			conn := dial()
			stop := make(chan struct{})
			go func() {
				_, _ = io.WriteString(conn, head)
				for tick := time.NewTicker(10 * time.Millisecond); ; {
					select {
					case <-stop:
						tick.Stop()
						return
					case <-tick.C:
						if _, err := io.WriteString(conn, drop); err != nil {
							tick.Stop()
							return
						}
					}
				}
			}()
			began := time.Now()
			got := answers(conn)
			close(stop)
			if took := time.Since(began); took > within || len(got) > 1 || len(got) == 1 && (got[0] < 400 || got[0] >= 500) {
				t.Errorf("%s: %v after %v", what, got, took)
			}
		})
	}
	routes := 0
	for route := range served(t, h) {
		method, path := route[0], route[1]
		if method == "GET" {
			continue
		}
		routes++
		for kind, length := range map[string]string{"long": "Content-Length: 1000000", "chunked": "Transfer-Encoding: chunked"} {
			for _, contentType := range []string{"application/json", "application/x-www-form-urlencoded"} {
				head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n%s\r\n\r\n", method, path, contentType, length)
				drop := " "
				if kind == "chunked" {
					drop = "1\r\n \r\n"
				}
				drip(fmt.Sprint(kind, " ", method, " ", path, " ", contentType), head, drop, 10*time.Second)
			}
		}
	}
	if routes < 3 {
		t.Errorf("only %d routes write", routes)
	}
	drip("no such path", "POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", " ", 10*time.Second)
	drip("headers", "POST /x HTTP/1.1\r\nHost: localhost\r\n", "X: y\r\n", 15*time.Second)
	for range 5 {
		began := time.Now()
		if w := serve(h, request("GET", "/livez", "")); w.Code != 200 || time.Since(began) > 5*time.Second {
			t.Errorf("/livez: %d after %v", w.Code, time.Since(began))
		}
	}
	all.Wait()
	if n := ran.Load(); n != 0 {
		t.Errorf("%d operations ran for bodies that never came", n)
	}
}

// A client that asks and does not take the answer holds its connection for so long and no longer.
func TestSlowReadersAreCutOff(t *testing.T) {
	server := admin.NewServer(http.NotFoundHandler())
	if server.WriteTimeout <= 0 || server.ReadHeaderTimeout <= 0 || server.IdleTimeout <= 0 || server.MaxHeaderBytes <= 0 {
		t.Fatalf("not all is bounded: %+v", server)
	}
	cut := make(chan error, 1)
	slow := httptest.NewUnstartedServer(mount(t, &admin.Options{Tokens: tokens(), Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for err := error(nil); ; {
			if _, err = io.WriteString(w, strings.Repeat("x", 1<<20)); err != nil {
				cut <- err
				return
			}
		}
	}), PublicMetrics: true}))
	slow.Config.WriteTimeout, slow.Config.IdleTimeout = 300*time.Millisecond, server.IdleTimeout
	slow.Start()
	defer slow.Close()
	conn, err := net.Dial("tcp", slow.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
	select {
	case <-cut:
	case <-time.After(20 * time.Second):
		t.Error("whoever does not read is waited for without an end")
	}
}
