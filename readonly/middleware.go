package readonly

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"path"
	"strconv"
	"time"
)

// Middleware refuses requests whose method writes while the mode is on: 503, Retry-After, application/problem+json.
// Unknown methods write. It is politeness; AllowWrite is the fence.
func (s *Switch) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reads(r.Method) {
			next.ServeHTTP(w, r)
			return
		}
		// Counting before looking leaves no gap in which a write is neither counted nor refused.
		s.inFlight.Add(1)
		defer s.inFlight.Add(-1)
		if err := s.check(); err != nil && !s.exempted(r) {
			s.refused.WithLabelValues("http").Inc()
			s.Refuse(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
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
	w.WriteHeader(http.StatusServiceUnavailable)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(map[string]any{
		"status": http.StatusServiceUnavailable,
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

// exempted trusts a pattern only on a clean path: /login/../leads is not /login.
func (s *Switch) exempted(r *http.Request) bool {
	if len(s.options.Exempt) == 0 || r.URL.Path != path.Clean(r.URL.Path) {
		return false
	}
	_, pattern := s.exempt.Handler(r)
	return pattern != ""
}
