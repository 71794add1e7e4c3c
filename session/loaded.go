package session

import "context"

// loaded remembers, for the time of a request, what the store answered for its session, so that the commit can tell
// whether somebody else has written since. scs itself keeps neither.
type loaded struct {
	token string
	at    place
	// stored is what Redis has, value what scs encoded.
	stored, value string
	found         bool
}

type loadedKey struct{}

func withLoaded(ctx context.Context, l *loaded) context.Context {
	return context.WithValue(ctx, loadedKey{}, l)
}

// loadedOf returns what the request of ctx has loaded for token, or nil.
func loadedOf(ctx context.Context, token string) *loaded {
	l, _ := ctx.Value(loadedKey{}).(*loaded)
	if l == nil || l.token != token {
		return nil
	}
	return l
}
