package cache

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

var (
	// ErrMiss says that the cache has no entry for the key that this caller may use.
	ErrMiss = errors.New("cache: miss, load the value from its origin")
	// ErrNotFound says that the origin has no such value. A loader returns it, or an error that wraps it; with
	// NegativeTTL the answer itself is cached.
	ErrNotFound = errors.New("cache: not found at the origin")
	// ErrShed says that MaxLoads loads were running for as long as LoadWait. Answer 503, or serve without the value.
	ErrShed = errors.New("cache: load refused, the origin has as many loads as allowed; retry later or raise Options.MaxLoads")
	// ErrLoadTimeout says that a loader did not return within LoadTimeout.
	ErrLoadTimeout = errors.New("cache: the loader did not return within Options.LoadTimeout")
	// ErrTooLarge says that an encoded value is over MaxValueBytes and was not stored.
	ErrTooLarge = errors.New("cache: value is over Options.MaxValueBytes and is not stored")
	// ErrKey says that a key is empty or over 1024 bytes.
	ErrKey = errors.New("cache: a key needs 1 to 1024 bytes")
	// ErrPattern is wrapped by every error about a pattern.
	ErrPattern = errors.New("cache: bad pattern")
	// ErrExtension is wrapped by every error about the fields of an Extension other than its pattern.
	ErrExtension = errors.New("cache: bad extension")
	// ErrUnknownSet says that no warm set of that name is declared.
	ErrUnknownSet = errors.New("cache: no such warm set")
	// ErrIncomplete says that a sweep could not finish on every node, as its Report says, or that nothing keeps later loads back
	// that are older than what the caller wrote. Call again.
	ErrIncomplete = errors.New("cache: sweep is incomplete")
)

// PanicError is what all waiters of a load get when its loader panicked.
type PanicError struct {
	// Value is what the loader panicked with; nil for runtime.Goexit.
	Value any
	// Stack is the loader's stack.
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("cache: the loader panicked, fix it: %v", e.Value)
}

// KeyErrors is what calls over many keys return when some keys failed, by key. errors.Is and errors.As look at all.
type KeyErrors map[string]error

func (e KeyErrors) Error() string {
	keys := slices.Sorted(maps.Keys(e))
	var b strings.Builder
	fmt.Fprintf(&b, "cache: %d keys failed", len(e))
	for i, k := range keys {
		if i == 3 {
			b.WriteString("; …")
			break
		}
		fmt.Fprintf(&b, "; %q: %v", clip(k), e[k])
	}
	return b.String()
}

// Unwrap returns the errors of all keys.
func (e KeyErrors) Unwrap() []error { return slices.Collect(maps.Values(e)) }

func (e KeyErrors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// clip keeps hostile input out of logs beyond what identifies it.
func clip(s string) string {
	const limit = 64
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}
