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
}

func (p *plain) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	if !wellFormed(token) {
		p.count("find", "malformed")
		return nil, false, nil
	}
	b, found, err := p.find(ctx, token)
	switch {
	case err != nil:
		return nil, false, p.failed("find", err)
	case !found:
		p.count("find", "miss")
		return nil, false, nil
	}
	p.count("find", "hit")
	loadedFrom(ctx).record(token, b)
	return b, true, nil
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
	ctx = context.WithoutCancel(ctx)
	if _, ok := loadedFrom(ctx).base(token); ok {
		_, found, err := p.find(ctx, token)
		if err != nil {
			return p.failed("commit", err)
		}
		if !found {
			p.count("commit", "revoked")
			return ErrRevoked
		}
	}
	commit := p.store.Commit
	if c, ok := p.store.(scs.CtxStore); ok {
		commit = func(token string, b []byte, expiry time.Time) error { return c.CommitCtx(ctx, token, b, expiry) }
	}
	if err := commit(token, b, expiry); err != nil {
		return p.failed("commit", err)
	}
	p.count("commit", "ok")
	return nil
}

func (p *plain) DeleteCtx(ctx context.Context, token string) error {
	if !wellFormed(token) {
		return nil
	}
	remove := p.store.Delete
	if c, ok := p.store.(scs.CtxStore); ok {
		remove = func(token string) error { return c.DeleteCtx(context.WithoutCancel(ctx), token) }
	}
	if err := remove(token); err != nil {
		return p.failed("delete", err)
	}
	p.count("delete", "ok")
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
	switch store := p.store.(type) {
	case scs.IterableCtxStore:
		return store.AllCtx(ctx)
	case scs.IterableStore:
		return store.All()
	default:
		return nil, errors.New("session: this store cannot be iterated")
	}
}

// Ready asks for a session that nobody has.
func (p *plain) Ready(ctx context.Context) error {
	if _, _, err := p.find(ctx, "ready"); err != nil {
		return p.failed("ready", err)
	}
	return nil
}

func (p *plain) counter() *prometheus.CounterVec { return p.commands }

func (p *plain) limit(context.Context, string, time.Time) {}

func (p *plain) count(operation, outcome string) {
	p.commands.WithLabelValues(operation, outcome).Inc()
}

func (p *plain) failed(operation string, err error) error {
	p.count(operation, outcomeOf(err))
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, operation, err)
}
