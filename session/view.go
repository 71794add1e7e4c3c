package session

import (
	"time"

	"github.com/alexedwards/scs/v2"
)

// view is a stored session that is read and not changed.
type view struct {
	deadline time.Time
	values   map[string]any
}

func viewOf(codec scs.Codec, b []byte) (v view, err error) {
	v.deadline, v.values, err = codec.Decode(b)
	return v, err
}

func (v *view) get(key string) any { return v.values[key] }

func (v *view) text(key string) string {
	s, _ := v.get(key).(string)
	return s
}
