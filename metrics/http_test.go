package metrics_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/scaleaware/scaleaware/metrics"
)

// served lists "route method class ×n" for everything that reg has counted, sorted.
func served(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		if f.GetName() != metrics.HTTPRequestDuration.Name {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			lines = append(lines, fmt.Sprintf("%s %s %s ×%d", labels["route"], labels["method"], labels["code"], m.GetHistogram().GetSampleCount()))
		}
	}
	slices.Sort(lines)
	return lines
}

func value(t *testing.T, reg *prometheus.Registry, s metrics.Series) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == s.Name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("%s was not exported", s.Name)
	return 0
}

func newHTTP(t *testing.T, opts *metrics.HTTPOptions) (*metrics.HTTP, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	h, err := metrics.NewHTTP(reg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return h, reg
}

func get(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

type key struct{}

// copying is middleware that replaces the request, as session middleware does.
func copying(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, 1)))
	})
}

func ok(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }

func TestHTTPRoute(t *testing.T) {
	leads := func() *http.ServeMux {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /leads/{id}", ok)
		mux.HandleFunc("example.com/host/{x...}", ok)
		return mux
	}
	nested := func(inner http.Handler) *http.ServeMux {
		mux := http.NewServeMux()
		mux.Handle("/api/", http.StripPrefix("/api", inner))
		mux.Handle("/whole/leads/", inner)
		return mux
	}
	inOuter := func(h http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/v1/", http.StripPrefix("/v1", h))
		return mux
	}
	for name, test := range map[string]struct {
		next  http.Handler
		path  string
		route string
	}{
		"mux":                         {leads(), "/leads/7", "/leads/{id}"},
		"no pattern":                  {leads(), "/admin.php", "unmatched"},
		"host":                        {leads(), "http://example.com/host/a/b", "example.com/host/{x...}"},
		"copying middleware":          {copying(metrics.Routes(leads())), "/leads/7", "/leads/{id}"},
		"copying, no pattern":         {copying(metrics.Routes(leads())), "/x", "unmatched"},
		"plain middleware":            {http.HandlerFunc(leads().ServeHTTP), "/leads/7", "/leads/{id}"},
		"timeout":                     {http.TimeoutHandler(metrics.Routes(leads()), time.Minute, ""), "/leads/7", "/leads/{id}"},
		"nested":                      {nested(metrics.Routes(leads())), "/api/leads/7", "/api/leads/{id}"},
		"nested, no inner pattern":    {nested(metrics.Routes(leads())), "/api/nothing", "/api/"},
		"nested and not told":         {nested(leads()), "/api/leads/7", "/api/"},
		"nested and copying":          {copying(metrics.Routes(nested(copying(metrics.Routes(leads()))))), "/api/leads/7", "/api/leads/{id}"},
		"inside a mux":                {metrics.Routes(leads()), "/leads/7", "/leads/{id}"},
		"nested without a prefix cut": {nested(metrics.Routes(func() *http.ServeMux { m := http.NewServeMux(); m.HandleFunc("/whole/leads/{id}", ok); return m }())), "/whole/leads/7", "/whole/leads/{id}"},
	} {
		t.Run(name, func(t *testing.T) {
			h, reg := newHTTP(t, nil)
			get(h.Middleware(test.next), "GET", test.path)
			got := served(t, reg)
			if len(got) != 1 || !strings.HasPrefix(got[0], test.route+" GET ") {
				t.Errorf("GET %s was counted as %q, want route %s", test.path, got, test.route)
			}
		})
	}
	t.Run("inside another mux", func(t *testing.T) {
		h, reg := newHTTP(t, nil)
		get(inOuter(h.Middleware(leads())), "GET", "/v1/leads/7")
		get(inOuter(h.Middleware(copying(metrics.Routes(leads())))), "GET", "/v1/leads/7")
		if diff := cmp.Diff([]string{"/v1/leads/{id} GET 2xx ×2"}, served(t, reg)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestHTTPRouteOfATimeout(t *testing.T) {
	h, reg := newHTTP(t, nil)
	release := make(chan struct{})
	done := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-release; close(done) })
	get(h.Middleware(http.TimeoutHandler(metrics.Routes(mux), time.Millisecond, "")), "GET", "/slow")
	close(release)
	<-done
	if diff := cmp.Diff([]string{"/slow GET 5xx ×1"}, served(t, reg)); diff != "" {
		t.Error(diff)
	}
}

func TestHTTPCode(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/implicit", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(302) })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) })
	mux.HandleFunc("/down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503); w.WriteHeader(200) })
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(103); ok(w, r) })
	mux.HandleFunc("/odd", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(777) })
	h, reg := newHTTP(t, nil)
	handler := h.Middleware(mux)
	for _, path := range []string{"/implicit", "/moved", "/bad", "/down", "/hints", "/odd"} {
		get(handler, "POST", path)
	}
	get(handler, "BREW", "/implicit")
	want := []string{"/bad POST 4xx ×1", "/down POST 5xx ×1", "/hints POST 2xx ×1", "/implicit POST 2xx ×1", "/implicit _OTHER 2xx ×1", "/moved POST 3xx ×1", "/odd POST 5xx ×1"}
	if diff := cmp.Diff(want, served(t, reg)); diff != "" {
		t.Error(diff)
	}
}

func TestHTTPPanicCountsAndGoesOn(t *testing.T) {
	h, reg := newHTTP(t, nil)
	mux := http.NewServeMux()
	boom := errors.New("boom")
	mux.HandleFunc("/panic", func(w http.ResponseWriter, r *http.Request) { ok(w, r); panic(boom) })
	func() {
		defer func() {
			if v := recover(); v != boom {
				t.Errorf("the middleware let %v through, want the handler's own panic", v)
			}
		}()
		get(h.Middleware(mux), "GET", "/panic")
	}()
	if diff := cmp.Diff([]string{"/panic GET 5xx ×1"}, served(t, reg)); diff != "" {
		t.Error(diff)
	}
	if n := value(t, reg, metrics.HTTPActiveRequests); n != 0 {
		t.Errorf("%v requests are active after the panic", n)
	}
}

func TestHTTPClientGone(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"server error": {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); w.WriteHeader(500) }, "4xx"},
		"aborted":      {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }, "4xx"},
		"bug":          {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic("a bug") }, "5xx"},
		"answered":     {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "2xx"},
	} {
		t.Run(name, func(t *testing.T) {
			h, reg := newHTTP(t, nil)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			func() {
				defer func() { _ = recover() }()
				h.Middleware(test.handler).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
			}()
			if diff := cmp.Diff([]string{"unmatched GET " + test.want + " ×1"}, served(t, reg)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHTTPActive(t *testing.T) {
	h, reg := newHTTP(t, nil)
	handler := h.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if n := value(t, reg, metrics.HTTPActiveRequests); n != 1 {
			t.Errorf("%v requests are active during one", n)
		}
	}))
	get(handler, "GET", "/")
	if n := value(t, reg, metrics.HTTPActiveRequests); n != 0 {
		t.Errorf("%v requests are active after the last one", n)
	}
}

// The writer must offer what the server's own offers, over a real connection.
func TestHTTPWriterKeepsItsAbilities(t *testing.T) {
	h, reg := newHTTP(t, nil)
	mux := http.NewServeMux()
	mux.HandleFunc("/controller", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if err := errors.Join(control.SetWriteDeadline(time.Now().Add(time.Minute)), control.Flush()); err != nil {
			t.Errorf("http.ResponseController: %v", err)
		}
	})
	mux.HandleFunc("/flush", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() })
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		if n, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("file")); n != 4 || err != nil {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("Hijack: %v", err)
			return
		}
		if n := value(t, reg, metrics.HTTPActiveRequests); n != 0 {
			t.Errorf("%v requests are active after the hijack", n)
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		_ = conn.Close()
	})
	server := httptest.NewServer(h.Middleware(mux))
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	for _, path := range []string{"/controller", "/flush", "/file"} {
		resp, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "101") {
		t.Errorf("the hijacked connection said %q, %v", line, err)
	}
	// The last reply reaches us before its handler has returned.
	want := []string{"/controller GET 2xx ×1", "/file GET 2xx ×1", "/flush GET 2xx ×1", "/hijack GET 1xx ×1"}
	var diff string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if diff = cmp.Diff(want, served(t, reg)); diff == "" {
			return
		}
	}
	t.Error(diff)
}

// A plain writer must not pretend to flush or to be hijackable.
func TestHTTPWriterDoesNotPretend(t *testing.T) {
	h, _ := newHTTP(t, nil)
	type plain struct{ http.ResponseWriter }
	handler := h.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Flusher); ok {
			t.Error("the writer claims to flush and the original does not")
		}
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v, want http.ErrNotSupported", err)
		}
	}))
	handler.ServeHTTP(plain{httptest.NewRecorder()}, httptest.NewRequest("GET", "/", nil))
}

// Middleware that compresses hides ReadFrom, and websockets ask for http.Hijacker by type.
func TestHTTPWriterStaysAHijacker(t *testing.T) {
	h, reg := newHTTP(t, nil)
	type compressing struct {
		http.ResponseWriter
		http.Flusher
		http.Hijacker
	}
	inner := h.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(io.ReaderFrom); ok {
			t.Error("the writer claims ReadFrom and the original does not")
		}
		w.(http.Flusher).Flush()
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	}))
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		inner.ServeHTTP(compressing{w, w.(http.Flusher), w.(http.Hijacker)}, r)
	}))
	defer server.Close()
	if resp, err := server.Client().Get(server.URL); err == nil {
		_ = resp.Body.Close()
	}
	<-done
	if diff := cmp.Diff([]string{"unmatched GET 1xx ×1"}, served(t, reg)); diff != "" {
		t.Error(diff)
	}
}

func TestHTTPRouteLimit(t *testing.T) {
	h, reg := newHTTP(t, &metrics.HTTPOptions{MaxRoutes: 2})
	// A router that sets the pattern itself, from the path: what the limit is for.
	handler := h.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { r.Pattern = r.URL.Path }))
	for i := range 100 {
		get(handler, "GET", fmt.Sprintf("/%d", i))
	}
	get(handler, "GET", "/1")
	if diff := cmp.Diff([]string{"/0 GET 2xx ×1", "/1 GET 2xx ×2", "_OTHER GET 2xx ×98"}, served(t, reg)); diff != "" {
		t.Error(diff)
	}
	if n := value(t, reg, metrics.HTTPRouteOverflow); n != 98 {
		t.Errorf("the overflow was counted as %v, want 98", n)
	}
}

func TestNewHTTPRefusesNonsense(t *testing.T) {
	if _, err := metrics.NewHTTP(nil, &metrics.HTTPOptions{MaxRoutes: -1}); err == nil || !strings.Contains(err.Error(), "MaxRoutes") {
		t.Errorf("MaxRoutes -1 gave %v", err)
	}
}

func BenchmarkHTTP(b *testing.B) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /leads/{id}", func(http.ResponseWriter, *http.Request) {})
	h, err := metrics.NewHTTP(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	for name, handler := range map[string]http.Handler{"bare": mux, "measured": h.Middleware(mux)} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/leads/7", nil)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				r.Pattern = ""
				handler.ServeHTTP(w, r)
			}
		})
	}
}

// A handler that leaves its writer to somebody reaches nobody else's client with it, whatever it serves afterwards.
func TestHTTPWriterReachesNoOtherClient(t *testing.T) {
	h, _ := newHTTP(t, nil)
	var kept http.ResponseWriter
	mux := http.NewServeMux()
	mux.HandleFunc("/first", func(w http.ResponseWriter, _ *http.Request) { kept = w })
	mux.HandleFunc("/second", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(kept, "the first one's secret")
		_, _ = io.WriteString(w, "second")
	})
	for name, handler := range map[string]http.Handler{"mux": h.Middleware(mux), "behind middleware": h.Middleware(copying(metrics.Routes(mux)))} {
		t.Run(name, func(t *testing.T) {
			for range 200 {
				first := get(handler, "GET", "/first")
				second := get(handler, "GET", "/second")
				if second.Body.String() != "second" || first.Body.String() != "the first one's secret" {
					t.Fatalf("the first client got %q, the second %q", first.Body, second.Body)
				}
			}
		})
	}
}
