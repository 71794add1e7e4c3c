package session

import (
	"cmp"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/scaleaware/scaleaware"
)

// finish stores the session and sets its cookie on w. It runs once, before the response begins. An error means that it
// has answered itself.
func (q *request) finish(w http.ResponseWriter) error {
	m := q.manager
	q.changes = q.mark.Changes()
	q.mu.Lock()
	if q.err != nil && q.Context.Err() != nil && q.changes != q.before {
		// It failed because the client has hung up. Its next request must find what this one wrote.
		// What the handler put into the session that seemed empty is lost, as it is in any outage.
		q.err, q.fetched, q.degraded, q.refused = nil, false, false, false
		q.loaded, q.view, q.held, q.data = loaded{}, view{}, nil, nil
	}
	used, degraded, refused := q.data != nil, q.degraded, q.refused
	// Learning a position that the session knows as unknown is no change of the watermark, and yet news to the session.
	wrote := q.changes != q.before || slices.ContainsFunc(q.held, scaleaware.Token.Unknown)
	q.mu.Unlock()
	if refused {
		problem(w, http.StatusServiceUnavailable, "The session cannot be read at the moment. Try again.")
		return q.err
	}
	if degraded || !used && (!wrote || q.token == "") {
		return nil
	}
	asked := scs.Unmodified
	if used {
		asked = m.scs.Status(q)
	}
	q.carry(asked)
	if !q.used() {
		return nil
	}
	q.status = m.scs.Status(q)
	switch q.status {
	case scs.Modified:
		if err := q.commit(w); err != nil {
			_ = q.decide("")
			return q.uncommitted(w, asked, err)
		}
	case scs.Destroyed:
		_ = q.decide("")
		m.scs.WriteSessionCookie(q, w, "", time.Time{})
	}
	return nil
}

// commit stores a changed session.
func (q *request) commit(w http.ResponseWriter) error {
	m := q.manager
	if own, ok := m.store.(*Store); ok && !q.loaded.found && q.token != "" && !q.login {
		// Its cookie would take the place of the one that a parallel request is getting.
		if outdated, err := own.outdated(q, q.token); outdated || err != nil {
			return cmp.Or(err, errOutdated)
		}
	}
	if err := q.enrol(); err != nil {
		return err
	}
	q.kept = q.snapshot()
	q.idle = idleFrom(m.scs.GetString(q, idleKey), m.opts.IdleTimeout)
	token, expiry, err := m.scs.Commit(q)
	if err != nil {
		return err
	}
	if token != q.loaded.token {
		if err := q.decide(token); err != nil {
			return err
		}
	}
	if q.renewal.follows.Load() {
		return nil // the client has another token, or is about to
	}
	// A cookie that says nothing new could undo the one that a parallel request has just got for a renewed session.
	was, remembered := time.Time{}, false
	if q.loaded.found {
		was = q.view.deadline
		remembered, _ = q.view.get(rememberKey).(bool)
	}
	if token != q.loaded.token || !expiry.Equal(was) || m.scs.GetBool(q, rememberKey) != remembered {
		m.scs.WriteSessionCookie(q, w, token, expiry)
	}
	return nil
}

// carry puts the raised tokens into a session that exists or is about to.
func (q *request) carry(status scs.Status) {
	m := q.manager
	if status == scs.Destroyed {
		return
	}
	if status == scs.Unmodified {
		if err := q.fetchDetached(); err != nil {
			m.opts.Logger.WarnContext(q, "session: the position of a write is lost, the session cannot be read", "error", err)
			return
		}
		if !q.loaded.found {
			return
		}
	}
	ctx, cancel := detached(q.Context, m.opts.PositionTimeout)
	defer cancel()
	written, err := q.mark.Written(ctx)
	if err != nil {
		m.count("token", "error")
		m.opts.Logger.WarnContext(ctx, "session: the session gets no position of a write, only that there is one", "error", err)
	}
	if stored := q.tokens(); !stored.Includes(written) {
		q.mu.Lock()
		q.held = advance(stored, q.held, written)
		text := q.held.String()
		q.mu.Unlock()
		m.scs.Put(q, tokensKey, text)
		m.count("token", "raised")
	}
}

// fetchDetached loads the session for what the handler wrote elsewhere, even when its client has hung up. It did not ask for
// the session, so it is not refused.
func (q *request) fetchDetached() error {
	ctx, cancel := detached(q.Context, q.manager.opts.StoreTimeout)
	defer cancel()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.load(ctx)
	q.refused = false
	return q.err
}

// tokens returns what the session holds. Malformed ones count as none.
func (q *request) tokens() scaleaware.Tokens {
	text := q.view.text(tokensKey)
	if q.used() {
		text = q.manager.scs.GetString(q, tokensKey)
	}
	tokens, err := scaleaware.ParseTokens(text)
	if err != nil {
		q.manager.count("token", "malformed")
	}
	return tokens
}

// uncommitted decides what a failed commit means for the response. asked is the status that the handler left.
func (q *request) uncommitted(w http.ResponseWriter, asked scs.Status, err error) error {
	m := q.manager
	switch {
	case errors.Is(err, ErrRevoked) && q.login:
		m.count("login", "revoked")
		problem(w, http.StatusServiceUnavailable, "Everybody was logged out while this log-in was under way. Log in again.")
		return err
	case errors.Is(err, ErrRevoked):
		m.opts.Logger.InfoContext(q, "session: dropped the changes of a request whose session has ended meanwhile")
		return nil
	case errors.Is(err, errOutdated) && q.policy == Refuse:
		m.count("commit", "outdated")
		problem(w, http.StatusServiceUnavailable, "The session was renewed meanwhile. Try again.")
		return err
	case errors.Is(err, errOutdated):
		m.count("commit", "outdated")
		m.opts.Logger.WarnContext(q, "session: dropped the changes of a request whose token was renewed before it came")
		return nil
	case asked == scs.Unmodified, errors.Is(err, ErrUnavailable) && q.policy != Refuse && !q.login:
		m.opts.Logger.WarnContext(q, "session: changes are lost, the session cannot be stored", "error", err)
		return nil
	case errors.Is(err, ErrUnavailable):
		m.opts.Logger.WarnContext(q, "session: refused a response, its session cannot be stored", "error", err)
		problem(w, http.StatusServiceUnavailable, "The session cannot be stored at the moment. Try again.")
		return err
	default:
		m.count("commit", "unencodable")
		m.opts.Logger.ErrorContext(q, "session: the values cannot be encoded, register their types with encoding/gob", "error", err)
		problem(w, http.StatusInternalServerError, "The session cannot be stored.")
		return err
	}
}

// after looks at what the handler did once the response had begun.
func (q *request) after() {
	m := q.manager
	q.mu.Lock()
	used, degraded, token := q.data != nil, q.degraded, q.loaded.token
	q.mu.Unlock()
	if degraded {
		return
	}
	status := scs.Unmodified
	if used {
		status, token = m.scs.Status(q), m.scs.Token(q)
	} else if token == "" {
		token = q.token
	}
	if status == scs.Modified && (q.status != scs.Modified || !reflect.DeepEqual(q.kept, q.snapshot())) {
		m.count("put", "late")
		m.opts.Logger.WarnContext(q, "session: changes made after the response had begun are lost, make them before writing it")
	}
	if status == scs.Destroyed || q.mark.Changes() == q.changes {
		return
	}
	m.count("token", "late")
	own, ok := m.store.(*Store)
	if !ok || token == "" {
		return
	}
	ctx, cancel := detached(q.Context, m.opts.PositionTimeout)
	defer cancel()
	written, err := q.mark.Written(ctx)
	if raised := own.raise(q.Context, token, q.held, written); !errors.Is(raised, ErrRevoked) {
		err = errors.Join(err, raised)
	}
	if err != nil {
		m.count("token", "error")
		m.opts.Logger.WarnContext(ctx, "session: the session does not get the position of a late write", "error", err)
	}
}
