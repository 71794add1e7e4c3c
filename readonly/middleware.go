package readonly

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Middleware refuses requests that write while the mode is on: Options.Status, Retry-After, application/problem+json. Unknown
// methods write, and so do upgrades to WebSocket. It is politeness; AllowWrite is the fence.
func (s *Switch) Middleware(next http.Handler) http.Handler { return &gate{s, next} }

// gate is a handler behind a switch.
type gate struct {
	*Switch
	next http.Handler
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodGet && !reads(r.Method):
		g.write(w, r)
	case !g.open() && disguised(r):
		g.admit(g.next, w, r)
	default:
		g.next.ServeHTTP(w, r)
	}
}

func (g *gate) write(w http.ResponseWriter, r *http.Request) {
	n, err := g.enter(r.Context())
	if err != nil {
		g.refuseUnlessExempt(g.next, w, r, err)
		return
	}
	defer n.Add(-1)
	g.next.ServeHTTP(w, r)
}

// admit lets a connection that is to be upgraded pass or not. It is not counted, because it may live for days: what comes
// through it asks AllowWrite or Begin.
func (s *Switch) admit(next http.Handler, w http.ResponseWriter, r *http.Request) {
	if closed := s.barrier(); closed != nil {
		if err := s.decide(r.Context(), closed); err != nil {
			s.refuseUnlessExempt(next, w, r, err)
			return
		}
	}
	next.ServeHTTP(w, r)
}

func (s *Switch) refuseUnlessExempt(next http.Handler, w http.ResponseWriter, r *http.Request, err error) {
	if s.exempted(r) {
		next.ServeHTTP(w, r)
		return
	}
	s.refused.WithLabelValues("http").Inc()
	s.Refuse(w, err)
}

// Refuse writes the answer that the middleware gives, for handlers that meet ErrReadOnly further down.
func (s *Switch) Refuse(w http.ResponseWriter, err error) {
	wait := s.options.RetryAfter
	if refused, ok := errors.AsType[*RefusedError](err); ok && !refused.State.Until.IsZero() {
		wait = max(wait, time.Until(refused.State.Until))
	}
	wait += rand.N(s.options.RetryAfter)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	w.WriteHeader(s.options.Status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(map[string]any{
		"status": s.options.Status,
		"title":  "Read-only mode",
		"detail": err.Error(),
	})
}

// reads follows RFC 9110 and, for QUERY, its successor on safe methods with a body.
func reads(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, "QUERY":
		return true
	}
	return false
}

// overrides are headers by which frameworks take another method than the request's.
var overrides = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

// disguised says that a request whose method reads may write: as a WebSocket, or by a method that a header puts in the
// place of its own.
func disguised(r *http.Request) bool {
	for _, value := range r.Header["Upgrade"] {
		if !strings.EqualFold(strings.TrimSpace(value), "h2c") {
			return true
		}
	}
	for _, name := range overrides {
		if slices.ContainsFunc(r.Header[name], func(method string) bool { return !reads(strings.ToUpper(strings.TrimSpace(method))) }) {
			return true
		}
	}
	return false
}

// exempted trusts a pattern only on a clean path: /login/../leads is not /login. Inside a ServeMux the pattern that has
// matched counts, and nothing else.
func (s *Switch) exempted(r *http.Request) bool {
	if len(s.options.Exempt) == 0 || r.URL.Path != path.Clean(r.URL.Path) {
		return false
	}
	if r.Pattern != "" {
		return slices.Contains(s.options.Exempt, r.Pattern)
	}
	_, pattern := s.exempt.Handler(r)
	return pattern != ""
}
