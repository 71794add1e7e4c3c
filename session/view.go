package session

import (
	"time"

	"github.com/alexedwards/scs/v2"
)

// view is a stored session that is read and not changed.
type view struct {
	lazy
	codec scs.Codec
	raw   string
	// values are there when the data are not of the form that can be read value by value.
	values map[string]any
}

// viewOf returns errDeadline and errUndecodable as tolerant does.
func viewOf(codec scs.Codec, b string) (v view, err error) {
	v.codec, v.raw = codec, b
	if t, ok := codec.(tolerant); ok {
		if c, ok := t.Codec.(codecOf); ok {
			t.Codec = c.now()
		}
		if w, ok := t.Codec.(*wire); ok {
			if v.lazy, ok = w.open(b); ok {
				if !v.deadline.After(time.Now()) {
					return v, errDeadline
				}
				return v, nil
			}
		}
	}
	v.deadline, v.values, err = codec.Decode([]byte(b))
	return v, err
}

// get returns nil for what is not there.
func (v *view) get(key string) any {
	if v.values == nil && v.raw != "" {
		if value, ok := v.lazy.get(key); ok {
			return value
		}
		_, values, err := v.codec.Decode([]byte(v.raw))
		if err != nil {
			return nil
		}
		return values[key]
	}
	return v.values[key]
}

func (v *view) text(key string) string {
	if v.values == nil && v.raw != "" {
		if s, ok := v.lazy.string(key); ok {
			return s
		}
	}
	s, _ := v.get(key).(string)
	return s
}
