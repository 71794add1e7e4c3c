package session

import (
	"context"

	"github.com/scaleaware/scaleaware"
)

// raise takes a stored session's tokens from base to tokens, and changes nothing else in it. It returns ErrRevoked if it
// is gone.
func (s *Store) raise(ctx context.Context, token string, base, tokens scaleaware.Tokens) error {
	call, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	found, err := s.find(call, token)
	if err != nil {
		return err
	}
	if !found.found {
		return ErrRevoked
	}
	deadline, values, err := tolerant{s.codec}.Decode([]byte(found.value))
	if err != nil {
		return err
	}
	stored, idle := tokensOf(values), idleOf(values, s.opts.IdleTimeout)
	if stored.Includes(tokens) {
		s.limit(ctx, found.at, deadline, idle)
		return nil
	}
	values[tokensKey] = advance(stored, base, tokens).String()
	mine, err := s.codec.Encode(deadline, values)
	if err != nil {
		return err
	}
	ctx = context.WithValue(withLoaded(ctx, &found), idleKeyOf{}, &idle)
	return s.CommitCtx(ctx, token, mine, deadline)
}
