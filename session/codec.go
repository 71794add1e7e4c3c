package session

import (
	"fmt"
	"time"

	"github.com/alexedwards/scs/v2"
)

// codecOf is the codec of a manager's scs, which may be changed until the first request, without what tolerant adds.
type codecOf struct{ sm *scs.SessionManager }

func (c codecOf) now() scs.Codec {
	if t, ok := c.sm.Codec.(tolerant); ok {
		return t.Codec
	}
	return c.sm.Codec
}

func (c codecOf) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	return c.now().Encode(deadline, values)
}

func (c codecOf) Decode(b []byte) (time.Time, map[string]any, error) { return c.now().Decode(b) }

// careful makes any codec tolerant.
func careful(c scs.Codec) scs.Codec {
	if _, ok := c.(tolerant); ok {
		return c
	}
	return tolerant{c}
}

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
