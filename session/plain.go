package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// plain serves somebody else's scs.Store, with as much of Store's care as that interface allows.
type plain struct {
	store    scs.Store
	commands *prometheus.CounterVec
	shelf
}

func (p *plain) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	if l := loadedOf(ctx, token); l != nil && l.found {
		return []byte(l.value), true, nil
	}
	found, err := p.look(ctx, token)
	return []byte(found.value), found.found, err
}

// look looks at each place where the session may be.
func (p *plain) look(ctx context.Context, token string) (out loaded, err error) {
	places, n := p.locator.places(token)
	if n == 0 {
		p.count("find", "malformed")
		return out, nil
	}
	for i, at := range places[:n] {
		b, found, err := p.find(ctx, at.name)
		if err != nil {
			return out, p.failed("find", err)
		}
		if !found {
			continue
		}
		stored := string(b)
		value, err := p.vault.open(at, stored)
		if errors.Is(err, errHashed) {
			continue
		}
		if err != nil {
			p.count("find", "undecryptable")
			return out, nil
		}
		out = loaded{token: token, at: at, stored: stored, value: value, found: true}
		if p.locator.form == MoveRaw && i == 1 {
			if out, err = p.move(ctx, places[0], out); err != nil {
				return out, err
			}
		}
		p.count("find", "hit")
		return out, nil
	}
	p.count("find", "miss")
	return out, nil
}

// move is two steps here: who is logged out between them comes back. See NewWithStore.
func (p *plain) move(ctx context.Context, to place, was loaded) (loaded, error) {
	deadline, _, err := p.codec.Decode([]byte(was.value))
	if err != nil {
		return was, nil // it is told of where it is decoded
	}
	stored := p.vault.seal(to, []byte(was.value))
	if err := p.put(ctx, to.name, stored, deadline); err != nil {
		return loaded{}, p.failed("move", err)
	}
	if err := p.remove(ctx, was.at.name); err != nil {
		return loaded{}, p.failed("move", err)
	}
	p.count("move", "ok")
	was.at, was.stored = to, string(stored)
	return was, nil
}

func (p *plain) find(ctx context.Context, token string) ([]byte, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if c, ok := p.store.(scs.CtxStore); ok {
		return c.FindCtx(ctx, token)
	}
	return p.store.Find(token)
}

// CommitCtx looks whether a loaded session is still there before it writes. Between the two somebody may log out.
func (p *plain) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	if time.Until(expiry) < time.Millisecond {
		p.count("commit", "expired")
		return ErrRevoked
	}
	places, n := p.locator.places(token)
	if n == 0 {
		p.count("commit", "malformed")
		return errors.New("session: cannot store a token that scs did not make")
	}
	at := places[0]
	ctx = context.WithoutCancel(ctx)
	if l := loadedOf(ctx, token); l != nil && l.found {
		at = l.at
		_, found, err := p.find(ctx, at.name)
		if err != nil {
			return p.failed("commit", err)
		}
		if !found {
			p.count("commit", "revoked")
			return ErrRevoked
		}
	}
	if err := p.put(ctx, at.name, p.vault.seal(at, b), expiry); err != nil {
		return p.failed("commit", err)
	}
	p.count("commit", "ok")
	return nil
}

func (p *plain) put(ctx context.Context, name string, b []byte, expiry time.Time) error {
	if c, ok := p.store.(scs.CtxStore); ok {
		return c.CommitCtx(ctx, name, b, expiry)
	}
	return p.store.Commit(name, b, expiry)
}

func (p *plain) remove(ctx context.Context, name string) error {
	if c, ok := p.store.(scs.CtxStore); ok {
		return c.DeleteCtx(context.WithoutCancel(ctx), name)
	}
	return p.store.Delete(name)
}

func (p *plain) DeleteCtx(ctx context.Context, token string) error {
	places, n := p.locator.places(token)
	for _, at := range places[:n] {
		err := p.remove(ctx, at.name)
		p.recent.forget(at.id())
		if err != nil {
			return p.failed("delete", err)
		}
		p.count("delete", "ok")
	}
	return nil
}

func (p *plain) Find(token string) ([]byte, bool, error) {
	return p.FindCtx(context.Background(), token)
}

func (p *plain) Commit(token string, b []byte, expiry time.Time) error {
	return p.CommitCtx(context.Background(), token, b, expiry)
}

func (p *plain) Delete(token string) error { return p.DeleteCtx(context.Background(), token) }

// AllCtx implements scs.IterableCtxStore as far as the store below does.
func (p *plain) AllCtx(ctx context.Context) (map[string][]byte, error) {
	var all map[string][]byte
	var err error
	switch store := p.store.(type) {
	case scs.IterableCtxStore:
		all, err = store.AllCtx(ctx)
	case scs.IterableStore:
		all, err = store.All()
	default:
		err = errors.New("session: this store cannot be iterated")
	}
	out := make(map[string][]byte, len(all))
	for name, b := range all {
		if token, value, ok := p.listed(name, b); ok {
			out[token] = value
		}
	}
	return out, err
}

// Ready asks for a session that nobody has.
func (p *plain) Ready(ctx context.Context) error {
	if _, _, err := p.find(ctx, "ready"); err != nil {
		return p.failed("ready", err)
	}
	return nil
}

func (p *plain) counter() *prometheus.CounterVec { return p.commands }

func (p *plain) limit(context.Context, place, time.Time, time.Duration) {}

func (p *plain) count(operation, outcome string) {
	p.commands.WithLabelValues(operation, outcome).Inc()
}

func (p *plain) failed(operation string, err error) error {
	p.count(operation, outcomeOf(err))
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, operation, err)
}
