package session

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/scaleaware/scaleaware"
)

// Middleware gives each request its session, which is loaded when it is first used, and stores what changed before the
// response begins. The Watermark in the context begins with the session's consistency tokens: who asks for them loads the
// session too. Applied twice, the inner one does nothing.
func (m *Manager) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if m.request(ctx) != nil {
			next.ServeHTTP(w, r)
			return
		}
		q := &request{
			manager: m, began: time.Now(), token: m.cookie(r), agent: r.UserAgent(), policy: m.opts.OnStoreDown,
			mark: scaleaware.WatermarkFrom(ctx), vary: [1]string{"Cookie"}, idle: m.opts.IdleTimeout,
		}
		if h := w.Header(); len(h["Vary"]) == 0 {
			h["Vary"] = q.vary[:]
		} else {
			h.Add("Vary", "Cookie")
		}
		if q.mark == nil {
			ctx, q.mark = scaleaware.WithWatermark(ctx)
		}
		q.Context = ctx
		if q.token != "" {
			q.mark.SeedFrom(q)
		}
		q.before = q.mark.Changes()
		q.out = scaleaware.BeforeResponse(w, func() error { return q.finish(w) })
		next.ServeHTTP(q.out, r.WithContext(q))
		begunByHandler := q.out.Begun()
		if q.out.Begin() == nil && begunByHandler {
			q.after()
		}
	})
}

// OnStoreDown is for a route below Middleware: it says what becomes of its requests while the store does not answer, in place
// of Options.OnStoreDown. With Refuse the session is loaded before next is called, so that nothing is done for a request
// that is going to be refused.
func (m *Manager) OnStoreDown(policy StoreDown, next http.Handler) http.Handler {
	if policy == Degrade {
		m.recent.wanted.Store(true)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := m.request(r.Context())
		if q == nil {
			m.opts.Logger.ErrorContext(r.Context(), ErrNoSession.Error())
			problem(w, http.StatusInternalServerError, "The session cannot be read.")
			return
		}
		q.govern(policy)
		if policy == Refuse && q.fetch() != nil {
			_ = q.out.Begin() // answers
			return
		}
		next.ServeHTTP(w, r)
	})
}

// problem answers with an RFC 9457 body, without the headers that belonged to what the handler had in mind.
func problem(w http.ResponseWriter, status int, detail string) {
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified", "Location"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	body, _ := json.Marshal(struct {
		Status int    `json:"status"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}{status, http.StatusText(status), detail})
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
