package session

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// raise merges tokens into a stored session, and changes nothing else in it. It returns ErrRevoked if it is gone.
func (s *Store) raise(ctx context.Context, token string, tokens scaleaware.Tokens) error {
	call, cancel := detached(ctx, s.opts.StoreTimeout)
	defer cancel()
	base, err := s.get(call, token)
	if errors.Is(err, redis.Nil) {
		return ErrRevoked
	}
	if err != nil {
		return s.failed("find", err)
	}
	deadline, values, err := tolerant{s.codec}.Decode(base)
	if err != nil {
		return err
	}
	stored := tokensOf(values)
	if stored.Covers(tokens) {
		return nil
	}
	values[tokensKey] = stored.Merge(tokens).String()
	mine, err := s.codec.Encode(deadline, values)
	if err != nil {
		return err
	}
	return s.CommitCtx(withLoaded(ctx, &loaded{token: token, value: base, found: true}), token, mine, deadline)
}
