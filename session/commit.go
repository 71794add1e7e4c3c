package session

import (
	"context"
	"crypto/sha1" // #nosec G505 -- Redis scripts offer SHA-1 only; it tells versions apart and protects nothing
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// mergeTries bounds how often a commit gives way to other processes' of the same session, besides StoreTimeout.
const mergeTries = 10_000

// CommitCtx implements scs.CtxStore. It returns ErrRevoked if the session has gone since it was loaded. One whose token was
// renewed meanwhile takes the change at its new place.
func (s *Store) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	places, n := s.locator.places(token)
	if n == 0 {
		s.count("commit", "malformed")
		return errors.New("session: cannot store a token that scs did not make")
	}
	c := &change{base: loaded{at: places[0]}, mine: b, expiry: expiry, idle: s.opts.IdleTimeout}
	if l := loadedOf(ctx, token); l != nil && l.found {
		c.base = *l
	}
	if own, ok := ctx.Value(idleKeyOf{}).(*time.Duration); ok {
		c.idle = *own
	}
	if time.Until(expiry) < time.Millisecond {
		// SET would refuse this, or with some clients store it for ever.
		s.count("commit", "expired")
		return ErrRevoked
	}
	call, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	if !c.base.found {
		_, err := s.commitAll(call, []*change{c}, loaded{})
		return err
	}
	for {
		err := s.join(call, c)
		if !errors.Is(err, errRenewed) {
			return err
		}
		if c, err = s.follow(call, c); err != nil {
			return err
		}
		renewalOf(ctx, token).follow()
	}
}

// commitAll stores changes of one session in one command, merged with what is stored, and returns that. known is what was
// stored last as far as this process knows.
func (s *Store) commitAll(ctx context.Context, all []*change, known loaded) (loaded, error) {
	if !known.found {
		known = all[0].base
	}
	for range mergeTries {
		next, err := s.combine(all, known)
		if err != nil {
			return loaded{}, err
		}
		stored, now, err := s.commit(ctx, known, next)
		switch {
		case err != nil:
			return loaded{}, err
		case stored != nil:
			for range all {
				s.count("commit", "ok")
			}
			return loaded{at: known.at, stored: string(stored), value: string(next.mine), found: true}, nil
		}
		s.count("commit", "conflict")
		known.stored, known.found = now, true
		if known.value, err = s.vault.open(known.at, now); err != nil {
			s.count("commit", "undecryptable")
			return loaded{}, fmt.Errorf("%w: another instance has stored what this one cannot read: %w", ErrUnavailable, err)
		}
	}
	s.count("commit", "contended")
	return loaded{}, fmt.Errorf("%w: other requests of this session keep writing it", ErrUnavailable)
}

// combine makes one change of several, in their order, on top of what is stored.
func (s *Store) combine(all []*change, known loaded) (change, error) {
	out := *all[0]
	for n, c := range all {
		if n == 0 && (!c.base.found || c.base.value == known.value) {
			continue
		}
		theirs := []byte(known.value)
		if n > 0 {
			theirs = out.mine
			s.count("commit", "conflict")
		}
		b, deadline, err := merge(s.codec, []byte(c.base.value), c.mine, theirs, c.expiry)
		if err != nil {
			return out, err
		}
		out.mine, out.expiry, out.idle = b, deadline, c.idle
		if v, err := viewOf(tolerant{s.codec}, string(b)); err == nil {
			out.idle = idleFrom(v.text(idleKey), s.opts.IdleTimeout)
		}
	}
	return out, nil
}

// commit tries once, and returns what it has stored, or what somebody else has stored since.
func (s *Store) commit(ctx context.Context, was loaded, c change) (stored []byte, now string, err error) {
	ttl := time.Until(c.expiry)
	if c.idle > 0 {
		ttl = min(ttl, c.idle)
	}
	if ttl < time.Millisecond {
		s.count("commit", "expired")
		return nil, "", ErrRevoked
	}
	expected := ""
	if was.found {
		expected = version(was.stored)
	}
	stored = s.vault.seal(was.at, c.mine)
	reply, err := commitScript.Run(ctx, s.rdb, s.keys(was.at), stored, ttl.Milliseconds(), expected).Result()
	if err != nil {
		return nil, "", s.failed("commit", err)
	}
	switch reply := reply.(type) {
	case string:
		return nil, reply, nil
	case []any:
		return nil, "", errRenewed
	case int64:
		if reply == 1 {
			return stored, "", nil
		}
	}
	s.count("commit", "revoked")
	return nil, "", ErrRevoked
}

func version(stored string) string {
	sum := sha1.Sum([]byte(stored)) // #nosec G401 -- see the import
	return hex.EncodeToString(sum[:])
}
