package admin_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

func TestPanicsAndDeadlines(t *testing.T) {
	var logged bytes.Buffer
	h := mount(t, &admin.Options{Timeout: 10 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&logged, nil))},
		admin.Operation{Method: "GET", Path: "/panic", ID: "sample.panic", Do: func(context.Context, *admin.Call) (any, error) { panic("hunter2") }},
		admin.Operation{Method: "GET", Path: "/hang", ID: "sample.hang", Do: func(ctx context.Context, _ *admin.Call) (any, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("query: %w", ctx.Err())
		}},
		admin.Operation{Method: "GET", Path: "/nan", ID: "sample.nan", Do: func(context.Context, *admin.Call) (any, error) { return math.NaN(), nil }},
		admin.Operation{Method: "GET", Path: "/cause", ID: "sample.cause", Do: func(context.Context, *admin.Call) (any, error) {
			return nil, fmt.Errorf("outer: %w", admin.Unavailable(errors.New("the real reason"), "the database does not answer"))
		}},
		admin.Operation{Method: "GET", Path: "/raw", ID: "sample.raw", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("raw") })},
	)
	for path, status := range map[string]int{"/panic": 500, "/hang": 504, "/nan": 500, "/cause": 503, "/raw": 500} {
		w := serve(h, request("GET", path, ""))
		wantProblem(t, w, status)
		if strings.Contains(w.Body.String(), "hunter2") || strings.Contains(w.Body.String(), "reason\"") {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	for _, part := range []string{"operation=sample.panic", "route_test.go", "hunter2", "operation=sample.hang", "operation=sample.nan", `cause="the real reason"`} {
		if !strings.Contains(logged.String(), part) {
			t.Errorf("the log does not say %s:\n%s", part, logged.String())
		}
	}
}

// A write that breaks off, as httputil.ReverseProxy does when its target goes away, has perhaps changed something.
func TestBrokenOffWritesAreAudited(t *testing.T) {
	for name, write := range map[string]struct {
		said   string
		status int
	}{"silent": {"", 500}, "half": {"half an answer", 200}} {
		var records []admin.Record
		h := mount(t, &admin.Options{AllowInsecureLoopback: true, Audit: func(r admin.Record) { records = append(records, r) }}, admin.Operation{
			Method: "POST", Path: "/relay", ID: "relay", Role: admin.Operator, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if write.said != "" {
					io.WriteString(w, write.said)
				}
				panic(http.ErrAbortHandler)
			}),
		})
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("%s: the server sees %v", name, p)
				}
			}()
			serve(h, request("POST", "/relay", ""))
		}()
		if len(records) != 1 || records[0].Operation != "relay" || records[0].Status != write.status || !strings.Contains(records[0].Error, "broken off") {
			t.Errorf("%s: audited %+v", name, records)
		}
	}
}

// A handler that breaks off in its answer breaks the connection: a half answer must not look whole.
func TestPanicInTheMiddleOfAnAnswer(t *testing.T) {
	h := mount(t, nil, admin.Operation{Method: "GET", Path: "/raw", ID: "raw", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half")
		panic("here")
	})})
	server := httptest.NewServer(h)
	defer server.Close()
	response, err := server.Client().Get(server.URL + "/raw")
	if err == nil {
		_, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	if err == nil {
		t.Fatal("the answer looks whole")
	}
}

func TestAnswersSayHowToBeTreated(t *testing.T) {
	h := mount(t, &admin.Options{Tokens: tokens()}, sample()...)
	for _, path := range []string{"/", "/console.js", "/livez", "/nothing", "/api/v1/things/x", "/openapi.json"} {
		header := serve(h, request("GET", path, "", bearing(viewerSecret))).Header()
		cache := "no-store"
		if path == "/console.js" { // the same for everybody, with an ETag
			cache = "no-cache"
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": cache,
		} {
			if got := header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if csp := header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: %q", path, csp)
		}
	}
}

func TestServe(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := mount(t, &admin.Options{AllowInsecureLoopback: true}, sample()...)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- admin.Serve(ctx, listener, h) }()
	url := "http://" + listener.Addr().String()
	client := &http.Client{}
	defer client.CloseIdleConnections()
	response, err := client.Post(url+"/api/v1/things/Lead/pause", "application/json", strings.NewReader(`{"reason":"load"}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != 200 || !strings.Contains(string(body), `"reason":"load"`) {
		t.Fatalf("%d %s", response.StatusCode, body)
	}
	// A body over the limit is refused before it has arrived.
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /api/v1/things/Lead/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n%s", strings.Repeat(" ", 1<<20+1))
	response, err = http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || response.StatusCode != 413 {
		t.Fatalf("%v %v", response, err)
	}
	response.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := admin.Serve(t.Context(), listener, h); err == nil || !strings.HasPrefix(err.Error(), "admin: ") {
		t.Fatalf("on a closed listener: %v", err)
	}
}

// hurried notes the deadlines of a body.
type hurried struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
}

func (h *hurried) SetReadDeadline(at time.Time) error {
	h.deadlines = append(h.deadlines, at)
	return nil
}

// A client that dawdles with its body is refused; an operation may take longer than a body.
func TestBodiesHaveADeadline(t *testing.T) {
	w := &hurried{ResponseRecorder: httptest.NewRecorder()}
	h := mount(t, &admin.Options{AllowInsecureLoopback: true}, admin.Operation{
		Method: "POST", Path: "/slow", ID: "slow", Role: admin.Operator, Body: pauseBody{}, Do: func(context.Context, *admin.Call) (any, error) {
			if n := len(w.deadlines); n != 2 || w.deadlines[0].IsZero() || !w.deadlines[1].IsZero() {
				t.Errorf("while the operation runs, the deadlines were %v: want one, and its end", w.deadlines)
			}
			return nil, nil
		},
	})
	h.ServeHTTP(w, request("POST", "/slow", `{"reason":"load"}`))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	h.ShortenBodies(200 * time.Millisecond)
	server := httptest.NewServer(h)
	defer server.Close()
	for path, status := range map[string]int{"/slow": 400, "/none": 404, "/livez": 405} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{", path)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || response.StatusCode != status {
			t.Fatalf("%s: %v %v", path, response, err)
		}
		response.Body.Close()
	}
}
