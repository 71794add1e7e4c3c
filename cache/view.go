package cache

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware"
)

// View is the part of a Store that holds values of one type. Its methods are safe for concurrent use. V is decoded
// anew for each caller; nothing is shared between them, except with InProcess and when its codec fails.
type View[V any] struct {
	*viewState
	flights    flights[V]
	near       *near[V] // nil without InProcess
	refreshing sync.Map // keys that are loaded behind their callers' backs
	tags       func(id string, value V) []string
}

// viewState is what the store knows of a view, whatever its type.
type viewState struct {
	store  *Store
	name   string
	prefix string // of its keys
	opts   viewOptions
	typ    reflect.Type
	schema uint64
	window *window
	looked [results]prometheus.Counter
	local  stripes // hits in the process that are not in window and looked yet
	view   any     // the *View[V] itself
	err    error   // what is wrong with the declaration
	inner
}

// inner is what a view does without its type.
type inner interface {
	forget()                                                           // drops all running flights
	keyChanged(id string)                                              // takes in that an entry has changed
	dropMatching(pattern string)                                       // drops flights, and what is kept in the process
	reconsider(id string) func(raw []byte, ttl time.Duration, ok bool) // begins to look again at what is kept
	residents() (entries int, bytes uint64)                            // says what is kept
	matching(pattern string) (entries int)                             // counts what is kept of what a pattern names
}

type viewOptions struct {
	ttl, negative       time.Duration
	revalidate, onError time.Duration
	softTimeout         time.Duration
	jitter, early       float64
	codec               Codec
	untracked           bool
	compressOver        int
	inProcess           bool
	local               Local
	tags                any // func(id string, value V) []string
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

// StaleWhileRevalidate lets an entry be served for so long after its TTL, while one of all processes loads it anew behind
// the callers' backs. Without it a stale entry is loaded anew before the caller gets its answer.
func StaleWhileRevalidate(d time.Duration) ViewOption {
	return func(o *viewOptions) { o.revalidate = d }
}

// StaleIfError lets Load serve an entry for so long after its TTL when the loader fails, is refused with ErrShed, or does
// not return within LoadTimeout or SoftTimeout. It counts as stale, and what went wrong is counted and logged. What was
// invalidated is never served, but when Redis does not answer either: then what the process keeps is served (see InProcess),
// also before its TTL ends, if this process has not invalidated it and the caller wrote nothing that is newer. What
// others have invalidated since the process lost Redis may be among it. Without it Load returns the error.
func StaleIfError(d time.Duration) ViewOption { return func(o *viewOptions) { o.onError = d } }

// SoftTimeout is how long Load waits for a loader when it has a stale entry to serve instead; the loader goes on, and what
// it returns is stored. It needs StaleIfError. Without it Load waits to the loader's end.
func SoftTimeout(d time.Duration) ViewOption { return func(o *viewOptions) { o.softTimeout = d } }

// EarlyRefresh loads entries anew before they end, with a probability that grows towards the end, more for what takes
// long to load (Vattani, Chierichetti and Lowenstein, Optimal Probabilistic Cache Stampede Prevention, 2015). beta is
// about 1; more is earlier, at most 10. Without it entries are loaded when they have ended.
func EarlyRefresh(beta float64) ViewOption { return func(o *viewOptions) { o.early = beta } }

// WithCodec sets how values become bytes. Without it they become JSON.
func WithCodec(c Codec) ViewOption { return func(o *viewOptions) { o.codec = c } }

// Untracked says that the view's values do not come from a database that callers write to: entries are served
// whatever the caller wrote, and what loads have read is not remembered. Without it, an entry of unknown age is a miss for a
// caller that wrote.
func Untracked() ViewOption { return func(o *viewOptions) { o.untracked = true } }

var viewName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// Of declares a view, or returns the one that was declared with the same name, type and settings. A mistake (a bad
// name or setting, or a name that has another type or setting) does not panic: every call on the view returns it, and
// so do View.Err and Store.Ready.
func Of[V any](s *Store, name string, options ...ViewOption) *View[V] {
	o := viewOptions{ttl: 10 * time.Minute, jitter: 0.1, codec: JSON{}, compressOver: compressOver}
	for _, set := range options {
		set(&o)
	}
	typ := reflect.TypeFor[V]()
	v := &View[V]{viewState: &viewState{
		store:  s,
		name:   name,
		prefix: s.opts.Prefix + name + ":",
		opts:   o,
		typ:    typ,
		schema: schemaOf(typ),
		window: newWindow(s.opts.Window),
		err:    o.validate(name),
	}}
	v.view, v.inner = v, v
	if o.tags != nil {
		var ok bool
		if v.tags, ok = o.tags.(func(string, V) []string); !ok {
			v.err = errors.Join(v.err, fmt.Errorf("cache: Tags of view %q is for another type, give it a func(string, %v) []string", clip(name), typ))
		}
	}
	if o.inProcess && v.err == nil {
		v.near = newNear[V](o.local)
	}

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
	for r, label := range resultNames[:resultLoad] {
		v.looked[r] = s.in.requests.WithLabelValues(name, label)
	}
	s.views[name] = v.viewState
	byName := maps.Clone(s.views)
	s.byName.Store(&byName)
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
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"StaleWhileRevalidate", o.revalidate}, {"StaleIfError", o.onError}, {"SoftTimeout", o.softTimeout}} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("cache: %s of view %q is negative, leave it out for none", d.name, clip(name)))
		}
	}
	if o.softTimeout > 0 && o.onError == 0 {
		errs = append(errs, fmt.Errorf("cache: SoftTimeout of view %q has nothing to serve instead, give StaleIfError, too", clip(name)))
	}
	if !(o.early >= 0 && o.early <= 10) {
		errs = append(errs, fmt.Errorf("cache: EarlyRefresh of view %q is %v, give 0 to 10", clip(name), o.early))
	}
	errs = append(errs, o.local.validate(name))
	if o.codec == nil {
		errs = append(errs, fmt.Errorf("cache: codec of view %q is nil, leave WithCodec out for JSON", clip(name)))
	}
	return errors.Join(errs...)
}

func (o viewOptions) equal(other viewOptions) bool {
	same := o.codec.ID() == other.codec.ID() && (o.tags == nil) == (other.tags == nil)
	o.codec, other.codec = nil, nil
	o.tags, other.tags = nil, nil
	return same && o == other
}

// check says what is wrong with the view or a key. View names have no colon, so no key reaches into another view.
func (v *viewState) check(id string) error {
	if v.err != nil {
		return v.err
	}
	if id == "" || len(id) > maxKeyBytes {
		return fmt.Errorf("%w, this one has %d", ErrKey, len(id))
	}
	return nil
}

// key returns the entry's key in Redis.
func (v *viewState) key(id string) (string, error) {
	if err := v.check(id); err != nil {
		return "", err
	}
	return v.prefix + id, nil
}

func (v *viewState) in() *instruments { return v.store.in }

// fresh reports whether an entry may be given to a caller that must see need.
func (v *viewState) fresh(h *header, need scaleaware.Tokens) bool {
	return v.opts.untracked || covers(h.asOf, need)
}
