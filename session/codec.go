package session

import (
	"fmt"
	"time"

	"github.com/alexedwards/scs/v2"
)

// tolerant is scs's codec with what scs does not check: a deadline that has passed, and values that are absent.
type tolerant struct{ scs.Codec }

func (c tolerant) Decode(b []byte) (deadline time.Time, values map[string]any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errUndecodable, p)
		}
	}()
	deadline, values, err = c.Codec.Decode(b)
	switch {
	case err != nil:
		return time.Time{}, nil, fmt.Errorf("%w: %w", errUndecodable, err)
	case !deadline.After(time.Now()):
		return time.Time{}, nil, errDeadline
	case values == nil:
		values = map[string]any{}
	}
	return deadline, values, nil
}
