package metrics_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/scaleaware/scaleaware/metrics"
)

// nobody is a response writer that keeps nothing.
type nobody struct{ header http.Header }

func (w *nobody) Header() http.Header         { return w.header }
func (w *nobody) Write(p []byte) (int, error) { return len(p), nil }
func (w *nobody) WriteHeader(int)             {}

// attack sends n requests whose paths, methods and hosts are made up.
func attack(handler http.Handler, n int) {
	random := rand.New(rand.NewPCG(1, 2))
	methods := []string{"GET", "POST", "CONNECT", "TRACE", "get", "PROPFIND", "", "M"}
	r := &http.Request{ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, URL: new(url.URL)}
	w := &nobody{http.Header{}}
	for i := range n {
		what := fmt.Sprintf("%x", random.Uint64())
		*r.URL = url.URL{Path: "/" + what[:4] + "/" + what}
		if i%3 == 0 {
			r.URL.Path = "/" + what // what the mux redirects to, in the case of /{x}/
		}
		r.RequestURI, r.Host, r.Pattern = r.URL.Path, what+".example", ""
		r.Method = methods[i%len(methods)]
		if r.Method == "M" {
			r.Method += what
		}
		clear(w.header)
		handler.ServeHTTP(w, r)
	}
}

// series counts the histogram's children, and the routes that they tell apart.
func series(t *testing.T, reg *prometheus.Registry) (n int, routes []string) {
	t.Helper()
	for _, line := range served(t, reg) {
		n++
		routes = append(routes, strings.Fields(line)[0])
	}
	return n, slices.Compact(routes)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools keep goes with the second
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// registered is a mux of which the attack hits one pattern; the others have no request before it.
func registered(n int) *http.ServeMux {
	mux := http.NewServeMux()
	for i := range n {
		mux.HandleFunc(fmt.Sprintf("GET /api/r%d/{id}", i), ok)
	}
	mux.HandleFunc("/{x}/", http.NotFound)
	return mux
}

func TestHTTPAttackWithAMillionPathsMethodsAndHosts(t *testing.T) {
	const routes, limit = 300, 50
	for name, wrap := range map[string]func(*metrics.HTTP) http.Handler{
		"mux":               func(h *metrics.HTTP) http.Handler { return h.Middleware(registered(routes)) },
		"behind middleware": func(h *metrics.HTTP) http.Handler { return h.Middleware(copying(metrics.Routes(registered(routes)))) },
		// A router that takes the path for the pattern, with the mux behind it: the limit is for such.
		"bad router": func(h *metrics.HTTP) http.Handler {
			mux := metrics.Routes(registered(routes))
			return h.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/api/") {
					mux.ServeHTTP(w, r)
					return
				}
				r.Pattern = r.Method + " " + r.Host + r.URL.Path
			}))
		},
		// The same inside a mux.
		"bad handler": func(h *metrics.HTTP) http.Handler {
			mux := registered(routes)
			mux.HandleFunc("/{x}/{y}", func(_ http.ResponseWriter, r *http.Request) { r.Pattern = r.Host + r.URL.Path })
			return h.Middleware(mux)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, reg := newHTTP(t, &metrics.HTTPOptions{MaxRoutes: limit})
			handler := wrap(h)
			attack(handler, 20_000)
			before, _ := series(t, reg)
			size := heap()
			attack(handler, 250_000)
			grown := int64(heap()) - int64(size)
			if grown > 1<<20 {
				t.Errorf("the attack took %d bytes of memory", grown)
			}
			after, during := series(t, reg)
			if after > before+10 || len(during) > limit+3 { // _OTHER, unmatched, /{x}/
				t.Errorf("the attack made %d series of %d, and %d routes", after, before, len(during))
			}
			for i := range routes {
				get(handler, "GET", fmt.Sprintf("/api/r%d/7", i))
			}
			_, now := series(t, reg)
			for i := range routes {
				if route := fmt.Sprintf("/api/r%d/{id}", i); !slices.Contains(now, route) {
					t.Fatalf("after the attack %s is not told apart", route)
				}
			}
		})
	}
}

// The mux reports the path in place of the pattern when it redirects CONNECT.
func TestHTTPConnectAddsNoRoute(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"mux":     func(mux http.Handler) http.Handler { return mux },
		"copying": func(mux http.Handler) http.Handler { return copying(metrics.Routes(mux.(*http.ServeMux))) },
	} {
		t.Run(name, func(t *testing.T) {
			h, reg := newHTTP(t, nil)
			mux := http.NewServeMux()
			mux.HandleFunc("/{x}/", ok)
			handler := h.Middleware(wrap(mux))
			for _, path := range []string{"/made-up", "//made/../up", "/{x}/", "/made/up"} {
				r := httptest.NewRequest("GET", "http://x/", nil)
				r.Method, r.URL.Path, r.RequestURI = "CONNECT", path, path
				handler.ServeHTTP(httptest.NewRecorder(), r)
			}
			if diff := cmp.Diff([]string{"/{x}/ CONNECT 2xx ×3", "unmatched CONNECT 3xx ×1"}, served(t, reg)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
