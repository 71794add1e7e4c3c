package metrics

import (
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	unmatched = "unmatched"
	other     = "_OTHER" // OpenTelemetry's word for a value outside the known ones
)

// Routes serves mux and tells the [HTTP.Middleware] around it which pattern matches. It is needed where middleware
// between the two replaces the request, and inside another mux, whose pattern it completes: under
// http.StripPrefix("/api", Routes(inner)) at "/api/", the route is /api/leads/{id}.
func Routes(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := findPlace(w, r); p != nil {
			// Before serving: a handler that outlives an http.TimeoutHandler is to be counted under its route too.
			_, pattern := mux.Handler(r)
			p.enter(matched(r.Method, pattern, r.URL.Path), r.URL.Path)
		}
		mux.ServeHTTP(w, r)
	})
}

type placeKey struct{}

// place is where nested muxes note how far a request has come.
type place struct {
	mu    sync.Mutex
	route string
	path  string
}

func (p *place) enter(pattern, path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.route, p.path = join(p.route, p.path, pattern, path)
}

func (p *place) get() (route, path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.route, p.path
}

func findPlace(w http.ResponseWriter, r *http.Request) *place {
	if p, ok := r.Context().Value(placeKey{}).(*place); ok {
		return p
	}
	for {
		if m, ok := w.(interface{ measured() *exchange }); ok {
			return &m.measured().place
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		w = u.Unwrap()
	}
}

// route is the pattern that this request matched, or "".
func (e *exchange) route(r *http.Request) string {
	route, path := e.entry, e.path
	if route != "" {
		path, _, _ = strings.Cut(r.RequestURI, "?") // a mux around us may have stripped a prefix from the URL
	}
	if r.Pattern != e.entry {
		route, path = join(route, path, matched(r.Method, r.Pattern, e.path), e.path)
	}
	inner, innerPath := e.place.get()
	route, _ = join(route, path, inner, innerPath)
	return route
}

// vouched says that every part of the route is a pattern that somebody registered with a mux.
func (e *exchange) vouched(route string, r *http.Request, mux *http.ServeMux) bool {
	if noted, _ := e.place.get(); noted != "" && noted == route {
		return true
	}
	if e.entry != "" || mux == nil {
		return false
	}
	_, pattern := mux.Handler(r)
	return pattern == r.Pattern // a handler may have written to it
}

// matched is the pattern that a mux matched. For a CONNECT request to /a that it redirects to /a/, the mux reports the
// path in place of the pattern, and the path is the client's.
func matched(method, pattern, urlPath string) string {
	if method == http.MethodConnect && !strings.HasSuffix(urlPath, "/") && pattern == path.Clean("/"+urlPath)+"/" {
		return ""
	}
	return pattern
}

// join completes an outer mux's route by an inner one's pattern. The inner one says it all, unless it saw a shorter
// path because a prefix was stripped.
func join(outer, outerPath, inner, innerPath string) (route, path string) {
	if inner == "" {
		return outer, outerPath
	}
	if outer == "" || len(innerPath) >= len(outerPath) || !strings.HasSuffix(outerPath, innerPath) {
		return inner, innerPath
	}
	prefix := withoutMethod(outer)
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 { // "/api/" and "/api/{rest...}" alike
		prefix = prefix[:i]
	}
	return prefix + withoutMethod(inner), innerPath
}

func withoutMethod(pattern string) string {
	if _, path, ok := strings.Cut(pattern, " "); ok {
		return strings.TrimLeft(path, " \t")
	}
	return pattern
}

// routeTable keeps each route's histograms at hand, and the number of routes that nobody vouches for below a limit.
type routeTable struct {
	durations *prometheus.HistogramVec
	overflow  prometheus.Counter
	rest      *routeSeries
	limit     int

	mu        sync.Mutex                              // for writers
	patterns  atomic.Pointer[map[string]*routeSeries] // never changed in place
	byRoute   map[string]*routeSeries
	strangers int // routes that nobody vouches for
	spellings int // their patterns
}

func newRouteTable(limit int, durations *prometheus.HistogramVec, overflow prometheus.Counter) *routeTable {
	t := &routeTable{durations: durations, overflow: overflow, limit: limit, byRoute: map[string]*routeSeries{}}
	t.rest = &routeSeries{table: t, route: other}
	none := &routeSeries{table: t, route: unmatched}
	t.patterns.Store(&map[string]*routeSeries{"": none})
	return t
}

func (t *routeTable) find(pattern string) *routeSeries { return (*t.patterns.Load())[pattern] }

func (t *routeTable) add(pattern string, vouched bool) *routeSeries {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.find(pattern); s != nil {
		return s
	}
	route := withoutMethod(pattern)
	s := t.byRoute[route]
	if s == nil {
		if !vouched && t.strangers >= t.limit {
			t.overflow.Inc()
			return t.rest
		}
		s = &routeSeries{table: t, route: strings.Clone(route)}
		t.byRoute[s.route] = s
		if !vouched {
			t.strangers++
		}
	}
	if !vouched {
		if t.spellings >= 10*t.limit { // a route has one for each method: ten are more than any has
			return s
		}
		t.spellings++
	}
	known := *t.patterns.Load()
	more := make(map[string]*routeSeries, len(known)+1)
	for k, v := range known {
		more[k] = v
	}
	more[strings.Clone(pattern)] = s // a pattern made of a path would keep the whole request alive
	t.patterns.Store(&more)
	return s
}

var (
	httpMethods = [...]string{other, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}
	httpClasses = [...]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}
)

// routeSeries is one route's row of histograms, each made when it is first needed.
type routeSeries struct {
	table *routeTable
	route string
	cells [len(httpMethods)][len(httpClasses)]atomic.Pointer[cell]
}

type cell struct{ prometheus.Observer }

func (s *routeSeries) observe(method string, class int, took time.Duration, trace string) {
	m := 0
	for i := 1; i < len(httpMethods); i++ {
		if httpMethods[i] == method {
			m = i
			break
		}
	}
	c := s.cells[m][class].Load()
	if c == nil {
		c = &cell{s.table.durations.WithLabelValues(s.route, httpMethods[m], httpClasses[class])}
		s.cells[m][class].Store(c)
	}
	if trace == "" {
		c.Observe(took.Seconds())
		return
	}
	ObserveTraced(c.Observer, took.Seconds(), trace)
}
