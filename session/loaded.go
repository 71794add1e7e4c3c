package session

import (
	"context"
	"encoding/base64"
)

// loaded remembers, for the time of a request, what the store answered for its session, so that the commit can tell
// whether somebody else has written since. scs itself keeps neither.
type loaded struct {
	token string
	value []byte
	found bool
}

type loadedKey struct{}

func withLoaded(ctx context.Context, l *loaded) context.Context {
	return context.WithValue(ctx, loadedKey{}, l)
}

func loadedFrom(ctx context.Context) *loaded {
	l, _ := ctx.Value(loadedKey{}).(*loaded)
	return l
}

func (l *loaded) record(token string, value []byte) {
	if l != nil && l.token == token && !l.found {
		l.value, l.found = value, true
	}
}

// base returns what was loaded for token, and whether anything was.
func (l *loaded) base(token string) ([]byte, bool) {
	if l == nil || !l.found || l.token != token {
		return nil, false
	}
	return l.value, true
}

// wellFormed reports whether token has the one form that scs gives its tokens: 32 bytes as unpadded base64url.
func wellFormed(token string) bool {
	const size = 32
	var raw [size + 1]byte
	if len(token) != base64.RawURLEncoding.EncodedLen(size) {
		return false
	}
	// The decoder skips line breaks, so the count of bytes matters too.
	n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(token))
	return err == nil && n == size
}
