package session

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scaleaware/scaleaware"
)

// rememberKey is where scs keeps RememberMe.
const rememberKey = "__rememberMe"

type (
	requestKey struct{ m *Manager }
	currentKey struct{}
)

// request is one request under a manager.
type request struct {
	manager *Manager
	ctx     context.Context //nolint:containedctx // the session lives in it, and finish runs where no context is passed
	out     *scaleaware.ResponseWriter
	mark    *scaleaware.Watermark

	// What was loaded; token is empty for a session that does not exist yet.
	token    string
	deadline time.Time
	remember bool
	held     scaleaware.Tokens // the session's tokens that the watermark knows of: those loaded, then those stored
	degraded bool              // the store did not answer, so nothing is stored
	login    bool              // Login was called: the response must not say so unless it is stored

	// What was stored when the response began.
	changes uint64
	status  scs.Status
	values  map[string]any
}

func (m *Manager) request(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{m}).(*request)
	return q
}

// finish stores the session and sets its cookie on w. It runs once, before the response begins. An error means that it
// has answered itself.
func (q *request) finish(w http.ResponseWriter) error {
	m := q.manager
	q.changes = q.mark.Changes()
	if q.degraded {
		return nil
	}
	asked := m.scs.Status(q.ctx)
	q.carry(asked)
	q.status = m.scs.Status(q.ctx)
	switch q.status {
	case scs.Modified:
		q.values = q.snapshot()
		token, expiry, err := m.scs.Commit(q.ctx)
		if err != nil {
			return q.uncommitted(w, asked, err)
		}
		// A cookie that says nothing new could undo the one that a parallel request has just got for a renewed session.
		if token != q.token || !expiry.Equal(q.deadline) || m.scs.GetBool(q.ctx, rememberKey) != q.remember {
			m.scs.WriteSessionCookie(q.ctx, w, token, expiry)
		}
	case scs.Destroyed:
		m.scs.WriteSessionCookie(q.ctx, w, "", time.Time{})
	}
	return nil
}

// carry puts the raised tokens into a session that exists or is about to.
func (q *request) carry(status scs.Status) {
	m := q.manager
	if status == scs.Destroyed || status == scs.Unmodified && m.scs.Token(q.ctx) == "" {
		return
	}
	ctx, cancel := detached(q.ctx, m.opts.PositionTimeout)
	defer cancel()
	written, err := q.mark.Written(ctx)
	if err != nil {
		m.count("token", "error")
		m.opts.Logger.WarnContext(ctx, "session: the session gets no position of a write, only that there is one", "error", err)
	}
	if stored := q.tokens(); !stored.Includes(written) {
		q.held = advance(stored, q.held, written)
		m.scs.Put(q.ctx, tokensKey, q.held.String())
		m.count("token", "raised")
	}
}

// tokens returns what the session holds. Malformed ones count as none.
func (q *request) tokens() scaleaware.Tokens {
	tokens, err := scaleaware.ParseTokens(q.manager.scs.GetString(q.ctx, tokensKey))
	if err != nil {
		q.manager.count("token", "malformed")
	}
	return tokens
}

// uncommitted decides what a failed commit means for the response. asked is the status that the handler left.
func (q *request) uncommitted(w http.ResponseWriter, asked scs.Status, err error) error {
	m := q.manager
	switch {
	case errors.Is(err, ErrRevoked):
		m.opts.Logger.InfoContext(q.ctx, "session: dropped the changes of a request whose session has ended meanwhile")
		return nil
	case asked == scs.Unmodified, errors.Is(err, ErrUnavailable) && m.opts.OnStoreDown == Anonymous && !q.login:
		m.opts.Logger.WarnContext(q.ctx, "session: changes are lost, the session cannot be stored", "error", err)
		return nil
	case errors.Is(err, ErrUnavailable):
		m.opts.Logger.WarnContext(q.ctx, "session: refused a response, its session cannot be stored", "error", err)
		problem(w, http.StatusServiceUnavailable, "The session cannot be stored at the moment. Try again.")
		return err
	default:
		m.count("commit", "unencodable")
		m.opts.Logger.ErrorContext(q.ctx, "session: the values cannot be encoded, register their types with encoding/gob", "error", err)
		problem(w, http.StatusInternalServerError, "The session cannot be stored.")
		return err
	}
}

// after looks at what the handler did once the response had begun.
func (q *request) after() {
	m := q.manager
	if q.degraded {
		return
	}
	status := m.scs.Status(q.ctx)
	if status == scs.Modified && (q.status != scs.Modified || !reflect.DeepEqual(q.values, q.snapshot())) {
		m.count("put", "late")
		m.opts.Logger.WarnContext(q.ctx, "session: changes made after the response had begun are lost, make them before writing it")
	}
	if status == scs.Destroyed || q.mark.Changes() == q.changes {
		return
	}
	m.count("token", "late")
	own, ok := m.store.(*Store)
	token := m.scs.Token(q.ctx)
	if !ok || token == "" {
		return
	}
	ctx, cancel := detached(q.ctx, m.opts.PositionTimeout)
	defer cancel()
	written, err := q.mark.Written(ctx)
	if raised := own.raise(q.ctx, token, q.held, written); !errors.Is(raised, ErrRevoked) {
		err = errors.Join(err, raised)
	}
	if err != nil {
		m.count("token", "error")
		m.opts.Logger.WarnContext(ctx, "session: the session does not get the position of a late write", "error", err)
	}
}

func (q *request) snapshot() map[string]any {
	m := q.manager
	keys := m.scs.Keys(q.ctx)
	values := make(map[string]any, len(keys))
	for _, k := range keys {
		values[k] = m.scs.Get(q.ctx, k)
	}
	return values
}
