package session

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// raise takes a stored session's tokens from base to tokens, and changes nothing else in it. It returns ErrRevoked if it
// is gone.
func (s *Store) raise(ctx context.Context, token string, base, tokens scaleaware.Tokens) error {
	call, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	found, err := s.get(call, token)
	if errors.Is(err, redis.Nil) {
		return ErrRevoked
	}
	if err != nil {
		return s.failed("find", err)
	}
	deadline, values, err := tolerant{s.codec}.Decode(found)
	if err != nil {
		return err
	}
	stored := tokensOf(values)
	if stored.Includes(tokens) {
		return nil
	}
	values[tokensKey] = advance(stored, base, tokens).String()
	mine, err := s.codec.Encode(deadline, values)
	if err != nil {
		return err
	}
	return s.CommitCtx(withLoaded(ctx, &loaded{token: token, value: found, found: true}), token, mine, deadline)
}
