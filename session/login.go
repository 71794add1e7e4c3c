package session

import (
	"context"
	"errors"
	"fmt"
)

// Login makes the session that of principal, a user's id for example. The session gets a new token, so that one which
// somebody planted or saw before is worth nothing, and everything that was stored in it is dropped: read what an
// anonymous visitor should keep before, and put it back after. It is stored when the response begins; if that fails the response becomes a 503.
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
	case q.degraded:
		return ErrUnavailable
	}
	if err := m.scs.RenewToken(ctx); err != nil {
		return fmt.Errorf("session: login: %w", err)
	}
	if err := m.scs.Clear(ctx); err != nil {
		return fmt.Errorf("session: login: %w", err)
	}
	m.scs.Put(ctx, principalKey, principal)
	q.login = true
	return nil
}

// Logout destroys the session in the store at once; the cookie goes with the response. It works after the response has
// begun too. Errors: ErrNoSession; ErrUnavailable, and then the session still exists: say so to the user.
func (m *Manager) Logout(ctx context.Context) error {
	q := m.request(ctx)
	switch {
	case q == nil:
		return ErrNoSession
	case q.degraded:
		return ErrUnavailable
	}
	if err := m.scs.Destroy(ctx); err != nil {
		return fmt.Errorf("session: logout: %w", err)
	}
	return nil
}

// Principal returns who is logged in, or the empty string for nobody.
func (m *Manager) Principal(ctx context.Context) string {
	if m.request(ctx) == nil {
		return ""
	}
	return m.scs.GetString(ctx, principalKey)
}

// Principal returns who is logged in, or the empty string for nobody. With several managers around a handler it asks the
// innermost.
func Principal(ctx context.Context) string {
	if q, ok := ctx.Value(currentKey{}).(*request); ok {
		return q.manager.Principal(ctx)
	}
	return ""
}
