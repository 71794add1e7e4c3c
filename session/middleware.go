package session

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"github.com/scaleaware/scaleaware"
)

// Middleware loads the session of each request, seeds the Watermark in its context with the session's consistency
// tokens, and stores what changed before the response begins. Applied twice, the inner one does nothing.
func (m *Manager) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m.request(r.Context()) != nil {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Add("Vary", "Cookie")
		q, err := m.begin(r)
		if err != nil {
			level := slog.LevelWarn
			if r.Context().Err() != nil {
				level = slog.LevelDebug // the client has gone
			}
			m.opts.Logger.Log(r.Context(), level, "session: refused a request, its session cannot be read", "error", err)
			problem(w, http.StatusServiceUnavailable, "The session cannot be read at the moment. Try again.")
			return
		}
		q.out = scaleaware.BeforeResponse(w, func() error { return q.finish(w) })
		next.ServeHTTP(q.out, r.WithContext(q.ctx))
		begunByHandler := q.out.Begun()
		if q.out.Begin() == nil && begunByHandler {
			q.after()
		}
	})
}

// begin loads the session. An error means that the request is to be refused.
func (m *Manager) begin(r *http.Request) (*request, error) {
	ctx := r.Context()
	q := &request{manager: m, mark: scaleaware.WatermarkFrom(ctx)}
	if q.mark == nil {
		ctx, q.mark = scaleaware.WithWatermark(ctx)
	}
	ctx = context.WithValue(ctx, requestKey{m}, q)
	ctx = context.WithValue(ctx, currentKey{}, q)
	token := m.cookie(r)
	found := &loaded{token: token}
	ctx = withLoaded(ctx, found)

	var err error
	q.ctx, err = m.scs.Load(ctx, token)
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable):
		if m.opts.OnStoreDown == Refuse {
			return nil, err
		}
		m.opts.Logger.WarnContext(ctx, "session: serving a request as anonymous, its session cannot be read", "error", err)
		m.count("load", "anonymous")
		q.degraded = true
	case errors.Is(err, errDeadline):
		m.count("load", "expired")
	default:
		m.opts.Logger.WarnContext(ctx, "session: stored data cannot be decoded, its owner gets a new session", "error", err)
		m.count("load", "undecodable")
	}
	if err != nil {
		if q.ctx, err = m.scs.Load(ctx, ""); err != nil {
			return nil, err
		}
	}
	q.token, q.deadline, q.remember = m.scs.Token(q.ctx), m.scs.Deadline(q.ctx), m.scs.GetBool(q.ctx, rememberKey)
	if q.token != "" {
		m.store.limit(ctx, found.at, q.deadline)
	}
	q.held = q.tokens()
	for _, t := range q.held {
		q.mark.Raise(t)
	}
	return q, nil
}

// cookie returns the request's session token, or the empty string if there is none of the right form. Of two different
// ones neither is trusted.
func (m *Manager) cookie(r *http.Request) string {
	token := ""
	for _, c := range r.CookiesNamed(m.scs.Cookie.Name) {
		switch {
		case !wellFormed(c.Value):
			m.count("cookie", "malformed")
		case token != "" && token != c.Value:
			m.count("cookie", "ambiguous")
			return ""
		default:
			token = c.Value
		}
	}
	return token
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
