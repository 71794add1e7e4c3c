package session

import (
	"context"
	"errors"
	"time"

	"github.com/scaleaware/scaleaware"
)

// load asks the store, once. q.mu is held.
func (q *request) load(ctx context.Context) {
	if q.fetched {
		return
	}
	q.fetched = true
	if q.token == "" {
		return
	}
	m := q.manager
	found, err := m.store.look(ctx, q.token)
	switch {
	case err != nil:
		q.down(err)
		return
	case !found.found:
		m.recent.drop(q.token)
		return
	}
	v, err := viewOf(careful(m.scs.Codec), found.value)
	switch {
	case errors.Is(err, errDeadline):
		m.count("load", "expired")
		return
	case err != nil:
		m.count("load", "undecodable")
		m.opts.Logger.WarnContext(ctx, "session: stored data cannot be decoded, its owner gets a new session", "error", err)
		return
	}
	if principal := v.text(principalKey); principal != "" && m.principals != nil {
		generation, device := v.text(generationKey), v.text(deviceKey)
		valid, listed, err := m.principals.valid(ctx, principal, generation, device)
		if err != nil {
			q.down(err)
			return
		}
		if !valid {
			m.count("load", "revoked")
			m.recent.drop(q.token)
			q.bury(ctx)
			return
		}
		if !listed && generation != "" {
			q.relist(ctx, found.at, &v, principal, generation, device)
		}
	}
	q.loaded, q.view = found, v
	q.idle = idleFrom(v.text(idleKey), m.opts.IdleTimeout)
	m.store.limit(ctx, found.at, v.deadline, q.idle)
	m.recent.put(q.token, q.loaded)
	q.held, err = scaleaware.ParseTokens(v.text(tokensKey))
	if err != nil {
		m.count("token", "malformed")
	}
}

// relist enters a session in a list that has lost it.
func (q *request) relist(ctx context.Context, at place, v *view, principal, generation, device string) {
	_, err := q.manager.principals.enrol(ctx, enrolment{
		principal: principal, device: device, generation: generation, life: time.Until(v.deadline),
		entry: entry{Name: at.name, Hashed: at.hashed, Agent: q.agent[:min(len(q.agent), maxAgent)]},
	})
	if err != nil {
		q.manager.opts.Logger.DebugContext(ctx, "session: a device stays out of its list", "error", err)
	}
}

// govern changes the policy, also for a load that has failed already.
func (q *request) govern(policy StoreDown) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.policy = policy
	if q.err != nil {
		q.down(q.err)
	}
}

// down notes that the store did not answer. q.mu is held.
func (q *request) down(err error) {
	m := q.manager
	q.err, q.degraded = err, true
	q.refused = q.policy == Refuse
	if q.policy == Degrade {
		if l, ok := m.recent.get(q.token); ok {
			if v, err := viewOf(careful(m.scs.Codec), l.value); err == nil {
				q.loaded, q.view = l, v
				q.held, _ = scaleaware.ParseTokens(v.text(tokensKey))
			}
		}
	}
	if q.Context.Err() != nil {
		return // the client has gone
	}
	m.count("load", q.policy.String())
	m.opts.Logger.WarnContext(q.Context, "session: a request's session cannot be read", "error", err, "served", q.policy)
}

// bury drops the data of a session that its principal has ended everywhere. Without that nobody gets in with it either.
func (q *request) bury(ctx context.Context) {
	if err := q.manager.store.DeleteCtx(ctx, q.token); err != nil {
		q.manager.opts.Logger.DebugContext(ctx, "session: a revoked session's data stay until they expire", "error", err)
	}
}

// Load loads the session now, where it is otherwise loaded when it is first used, and returns ErrUnavailable if the
// store does not answer. It may be called more than once.
func (m *Manager) Load(ctx context.Context) error {
	q := m.request(ctx)
	if q == nil {
		return ErrNoSession
	}
	return q.fetch()
}
