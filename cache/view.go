package cache

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
)

// View is the part of a Store that holds values of one type. Its methods are safe for concurrent use. V is decoded
// anew for each caller; nothing is shared between them unless its codec fails.
type View[V any] struct {
	*viewState
	store   *Store
	flights flights[V]
}

// viewState is what the store knows of a view, whatever its type.
type viewState struct {
	name   string
	prefix string // of its keys
	opts   viewOptions
	typ    reflect.Type
	schema uint64
	window *window
	looked [results]prometheus.Counter
	forget func() // drops all running flights
	view   any    // the *View[V] itself
	err    error  // what is wrong with the declaration
}

type viewOptions struct {
	ttl, negative time.Duration
	jitter        float64
	codec         Codec
	untracked     bool
}

// ViewOption is a setting of one view.
type ViewOption func(*viewOptions)

// TTL is how long an entry lives, before jitter. Without it an entry lives 10 minutes.
func TTL(d time.Duration) ViewOption { return func(o *viewOptions) { o.ttl = d } }

// NegativeTTL caches for so long that a loader returned ErrNotFound. Without it that is not cached.
func NegativeTTL(d time.Duration) ViewOption { return func(o *viewOptions) { o.negative = d } }

// Jitter shortens each entry's TTL by a random part of it up to share, from 0 to 0.5, so that what was stored together
// does not end together. Without it the share is 0.1.
func Jitter(share float64) ViewOption { return func(o *viewOptions) { o.jitter = share } }

// WithCodec sets how values become bytes. Without it they become JSON.
func WithCodec(c Codec) ViewOption { return func(o *viewOptions) { o.codec = c } }

// Untracked says that the view's values do not come from a database that callers write to: entries are served
// whatever the caller wrote. Without it, an entry of unknown age is a miss for a caller that wrote.
func Untracked() ViewOption { return func(o *viewOptions) { o.untracked = true } }

var viewName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// Of declares a view, or returns the one that was declared with the same name, type and settings. A mistake (a bad
// name or setting, or a name that has another type or setting) does not panic: every call on the view returns it, and
// so do View.Err and Store.Ready.
func Of[V any](s *Store, name string, options ...ViewOption) *View[V] {
	o := viewOptions{ttl: 10 * time.Minute, jitter: 0.1, codec: JSON{}}
	for _, set := range options {
		set(&o)
	}
	typ := reflect.TypeFor[V]()
	v := &View[V]{store: s, viewState: &viewState{
		name:   name,
		prefix: s.opts.Prefix + name + ":",
		opts:   o,
		typ:    typ,
		schema: schemaOf(typ),
		window: newWindow(s.opts.Window),
		err:    o.validate(name),
	}}
	v.view, v.forget = v, v.flights.forgetAll

	s.mu.Lock()
	defer s.mu.Unlock()
	if was, ok := s.views[name]; ok && v.err == nil {
		if same, ok := was.view.(*View[V]); ok && was.opts.equal(o) {
			return same
		}
		v.err = fmt.Errorf("cache: view %q is already declared as %v with other settings or type, give this one another name", name, was.typ)
	}
	if v.err != nil {
		s.broken = append(s.broken, v.err)
		return v
	}
	for r, label := range resultNames {
		v.looked[r] = s.in.requests.WithLabelValues(name, label)
	}
	s.views[name] = v.viewState
	return v
}

// Err returns what is wrong with the view's declaration, or nil.
func (v *View[V]) Err() error { return v.err }

func (o viewOptions) validate(name string) error {
	var errs []error
	if !viewName.MatchString(name) {
		errs = append(errs, fmt.Errorf("cache: view name %q, give 1 to 64 letters, digits, dots, dashes or underscores, beginning with a letter or digit", clip(name)))
	}
	if o.ttl < time.Millisecond {
		errs = append(errs, fmt.Errorf("cache: TTL of view %q is %v, give at least 1 ms", clip(name), o.ttl))
	}
	if o.negative != 0 && o.negative < time.Millisecond {
		errs = append(errs, fmt.Errorf("cache: NegativeTTL of view %q is %v, give at least 1 ms, or leave it out", clip(name), o.negative))
	}
	if !(o.jitter >= 0 && o.jitter <= 0.5) {
		errs = append(errs, fmt.Errorf("cache: Jitter of view %q is %v, give 0 to 0.5", clip(name), o.jitter))
	}
	if o.codec == nil {
		errs = append(errs, fmt.Errorf("cache: codec of view %q is nil, leave WithCodec out for JSON", clip(name)))
	}
	return errors.Join(errs...)
}

func (o viewOptions) equal(other viewOptions) bool {
	same := o.codec.ID() == other.codec.ID()
	o.codec, other.codec = nil, nil
	return same && o == other
}

// key returns the entry's key in Redis. View names have no colon, so no key reaches into another view.
func (v *viewState) key(id string) (string, error) {
	if v.err != nil {
		return "", v.err
	}
	if id == "" || len(id) > maxKeyBytes {
		return "", fmt.Errorf("%w, this one has %d", ErrKey, len(id))
	}
	return v.prefix + id, nil
}

// fresh reports whether an entry may be given to a caller that must see need.
func (v *viewState) fresh(h header, need scaleaware.Tokens) bool {
	return v.opts.untracked || fresh(h.asOf, need)
}
