package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Login makes the session that of principal, a user's id for example. The session gets a new token, so that one which
// somebody planted or saw before is worth nothing, and everything that was stored in it is dropped: read what an
// anonymous visitor should keep before, and put it back after. It is stored when the response begins, and entered in the
// principal's list of devices; if that fails the response becomes a 503. A log-in whose request began before a
// LogoutEverywhere of the same principal is refused so too: the password it was checked with may have been changed.
//
// Errors: ErrNoSession, ErrLate, ErrUnavailable. On an error nobody is logged in by this call.
func (m *Manager) Login(ctx context.Context, principal string) error {
	q := m.request(ctx)
	switch {
	case q == nil:
		return ErrNoSession
	case principal == "":
		return errors.New("session: Login needs a principal, an empty one means nobody")
	case q.out.Begun():
		return ErrLate
	}
	if err := q.fetch(); err != nil {
		return err
	}
	q.renewal.final.Store(true) // what belonged to nobody, or to somebody else, does not follow
	if err := m.scs.RenewToken(q); err != nil {
		return fmt.Errorf("session: login: %w", err)
	}
	if err := m.scs.Clear(q); err != nil {
		return fmt.Errorf("session: login: %w", err)
	}
	m.scs.Put(q, principalKey, principal)
	q.mu.Lock()
	q.login = true
	q.mu.Unlock()
	return nil
}

// Logout destroys the session in the store at once; the cookie goes with the response. It works after the response has
// begun too. Errors: ErrNoSession; ErrUnavailable, and then the session still exists: say so to the user.
func (m *Manager) Logout(ctx context.Context) error {
	q := m.request(ctx)
	if q == nil {
		return ErrNoSession
	}
	if err := q.fetch(); err != nil {
		return err
	}
	q.renewal.final.Store(true)
	if err := m.scs.Destroy(q); err != nil {
		return fmt.Errorf("session: logout: %w", err)
	}
	return nil
}

// Principal returns who is logged in, or the empty string for nobody.
func (m *Manager) Principal(ctx context.Context) string { return Session{m.request(ctx)}.Principal() }

// Principal returns who is logged in, or the empty string for nobody. With several managers around a handler it asks the
// innermost.
func Principal(ctx context.Context) string { return From(ctx).Principal() }

// SetIdleTimeout gives the session an idle timeout of its own, a second or more, instead of Options.IdleTimeout; 0 takes
// that again. Each read of such a session costs one command more. Log-in drops it with everything else. Errors: those of
// Session.Put.
func (m *Manager) SetIdleTimeout(ctx context.Context, d time.Duration) error {
	s := Session{m.request(ctx)}
	if d == 0 {
		return s.Remove(idleKey)
	}
	if d < time.Second {
		return fmt.Errorf("session: idle timeout is %v, want a second or more, or 0 for that of the options", d)
	}
	return s.Put(idleKey, strconv.FormatInt(d.Milliseconds(), 10))
}

// enrol enters a session that begins, or whose token or deadline changed, in its principal's list.
func (q *request) enrol() error {
	m := q.manager
	principal := m.scs.GetString(q, principalKey)
	if m.principals == nil || principal == "" {
		return nil
	}
	token, deadline := m.scs.Token(q), m.scs.Deadline(q)
	generation := m.scs.GetString(q, generationKey)
	if !q.login && (generation == "" || token == q.loaded.token && !deadline.After(q.view.deadline)) {
		return nil
	}
	places, n := m.principals.store.locator.places(token)
	if n == 0 {
		return nil // the commit refuses it
	}
	device := m.scs.GetString(q, deviceKey)
	if device == "" {
		device = rand.Text()
		m.scs.Put(q, deviceKey, device)
	}
	e := enrolment{
		principal: principal, device: device, began: q.began, life: time.Until(deadline),
		entry: entry{Name: places[0].name, Hashed: places[0].hashed, Agent: q.agent[:min(len(q.agent), maxAgent)]},
	}
	switch {
	case !q.login:
		e.generation = generation
	case q.revoked == principal:
		e.generation = q.revokedTo
	}
	generation, err := m.principals.enrol(q, e)
	if err != nil {
		return err
	}
	m.scs.Put(q, generationKey, generation)
	return nil
}
