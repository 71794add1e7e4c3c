package cache

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/scaleaware/scaleaware"
)

// Local bounds what a view keeps in the process.
type Local struct {
	// Entries is how many values are kept. Zero means 10,000.
	Entries int
	// Bytes is how much their encoded forms and keys may have together. Zero means 64 MiB.
	Bytes int64
	// TTL is how long a value is kept at most. It never outlives its entry in Redis. Zero means as long as that.
	TTL time.Duration
	// HotPerSecond keeps only keys that this process looks up at least as often (see Store.HotKeys), so that a large view
	// takes the load of its few hot keys from Redis and little memory. Zero means all.
	HotPerSecond float64
}

// InProcess keeps values in the process, too, decoded, up to the bounds: a hit there costs no command. A store that is
// running is told by Redis what changes, so a value is dropped within milliseconds after any process has changed or
// removed its entry, and before Delete, Set and Invalidate return in this one. While the store is not running, or a
// master is silent for Options.Silence, nothing that is kept is used, but for what StaleIfError allows. All callers get the same value: what V points to
// must not be changed. Without it, nothing is kept.
func InProcess(l Local) ViewOption {
	return func(o *viewOptions) { o.local, o.inProcess = l, true }
}

const (
	localEntries = 10_000
	localBytes   = 64 << 20
	// residentBytes is about what a value costs beside its bytes.
	residentBytes = 256
)

func (l Local) withDefaults() Local {
	if l.Entries == 0 {
		l.Entries = localEntries
	}
	if l.Bytes == 0 {
		l.Bytes = localBytes
	}
	return l
}

func (l Local) validate(view string) error {
	if l.Entries < 0 || l.Bytes < 0 || l.TTL < 0 || l.HotPerSecond < 0 {
		return fmt.Errorf("cache: a bound of InProcess of view %q is negative, leave it zero for its default", clip(view))
	}
	if l := l.withDefaults(); l.Bytes/int64(l.Entries) == 0 {
		return fmt.Errorf("cache: InProcess of view %q gives less than a byte to an entry, raise Bytes", clip(view))
	}
	return nil
}

const fenceShards = 512

// near is the in-process level of a view.
type near[V any] struct {
	cache  *otter.Cache[string, *resident[V]]
	seed   maphash.Seed
	fences [fenceShards]atomic.Uint64
	all    atomic.Uint64 // counts what concerns many
	// keeping is held by who keeps a value, and taken by who counts all: afterwards nobody keeps on an older count.
	keeping sync.RWMutex
}

// resident is a value kept in the process. It is not changed once it is there. Of a hundred thousand values few are in the
// processor's cache, and each line of memory that a look-up needs beside otter's own costs as much as all that is asked: so
// the cache holds pointers, what every look-up needs lies together, before the value, and what few need lies elsewhere.
type resident[V any] struct {
	cover *cover
	end   time.Duration // by the store's clock, as fresh
	fresh time.Duration
	slot  uint16
	kind  kind
	// suspect is set when a TTL extension may have touched the entry; nothing is known of it until it is looked at again.
	suspect bool
	tags    bool      // there are more than one
	tag     *tagState // the first of them, or nil
	value   V
	rest    *residentRest
}

// residentRest is what few look-ups need.
type residentRest struct {
	header header
	tags   []*tagState
	weight uint32
	kept   time.Duration // since when, by the store's clock
}

// ticket is taken before a value is read. What changes meanwhile makes it void.
type ticket struct {
	cover *cover
	slot  uint16
	shard uint64
	fence uint64
	all   uint64
	put   bool // the value was not read, but is new
}

func newNear[V any](l Local) *near[V] {
	l = l.withDefaults()
	least := max(1, uint64(l.Bytes)/uint64(l.Entries)) // so that the bound on bytes bounds entries, too
	return &near[V]{
		seed: maphash.MakeSeed(),
		cache: otter.Must(&otter.Options[string, *resident[V]]{
			MaximumWeight: uint64(l.Bytes),
			Weigher: func(_ string, r *resident[V]) uint32 {
				return uint32(min(max(uint64(r.rest.weight), least), 1<<32-1))
			},
		}),
	}
}

func (n *near[V]) ticket(s *Store, key, id string, now time.Duration) ticket {
	t := ticket{slot: s.coverage.slot(key), shard: maphash.String(n.seed, id) % fenceShards, all: n.all.Load()}
	t.fence = n.fences[t.shard].Load()
	t.cover = s.coverage.at(t.slot, now)
	return t
}

// keep stores a value that was read under a ticket, unless something changed since. A put is a change itself: it voids the
// tickets of those who read now.
func (n *near[V]) keep(id string, t ticket, r *resident[V]) (kept bool) {
	if t.cover == nil {
		return false
	}
	r.cover, r.slot = t.cover, t.slot
	n.keeping.RLock()
	defer n.keeping.RUnlock()
	n.cache.Compute(id, func(*resident[V], bool) (*resident[V], otter.ComputeOp) {
		if n.fences[t.shard].Load() != t.fence || n.all.Load() != t.all {
			return nil, otter.CancelOp
		}
		if t.put {
			n.fences[t.shard].Add(1)
		}
		kept = true
		return r, otter.WriteOp
	})
	return kept
}

// get returns what is kept for id if it is covered at now, or nil.
func (n *near[V]) get(s *Store, id string, now time.Duration) *resident[V] {
	r, ok := n.cache.GetIfPresent(id)
	if !ok || now >= r.end || r.suspect || !s.coverage.holds(r.cover, r.slot, now) || !s.rules.Load().current(s, now) {
		return nil
	}
	if r.tag != nil && !r.tag.holds(s, now) {
		return nil
	}
	if r.tags {
		for _, tag := range r.rest.tags[1:] {
			if !tag.holds(s, now) {
				return nil
			}
		}
	}
	return r
}

// drop forgets what is kept for id, and voids the tickets of those who read it now.
func (n *near[V]) drop(id string) {
	n.fences[maphash.String(n.seed, id)%fenceShards].Add(1)
	n.cache.Invalidate(id)
}

// suspectOf marks what is kept for id, and reports whether anything is.
func (n *near[V]) suspectOf(id string) bool {
	n.fences[maphash.String(n.seed, id)%fenceShards].Add(1)
	_, kept := n.cache.ComputeIfPresent(id, func(r *resident[V]) (*resident[V], otter.ComputeOp) {
		marked := *r
		marked.suspect = true
		return &marked, otter.WriteOp
	})
	return kept
}

// dropMatching forgets all that a pattern names, and voids all tickets.
func (n *near[V]) dropMatching(view, pattern string) {
	n.keeping.Lock()
	n.all.Add(1)
	n.keeping.Unlock()
	if pattern == "*" || pattern == view+":*" {
		n.cache.InvalidateAll()
		return
	}
	for id := range n.cache.Keys() {
		if globMatch(pattern, view+":"+id) {
			n.cache.Invalidate(id)
		}
	}
}

// usable reports whether a kept value may be given to a caller that must see need without more ado, and in which phase it is.
func (v *View[V]) usable(r *resident[V], need scaleaware.Tokens, now time.Duration) (phase, bool) {
	if len(need) > 0 && !v.fresh(&r.rest.header, need) {
		return over, false
	}
	switch {
	case now < r.fresh:
		return fresh, true
	case now < r.fresh+v.opts.revalidate:
		return revalidate, true
	default:
		return onError, false
	}
}

// keyChanged takes in that an entry has changed, or its TTL.
func (v *View[V]) keyChanged(id string) {
	// A load that runs may have begun before the change. Where it has not, because the news are of its own lease, who
	// comes now finds its claim and waits for it all the same.
	v.flights.forget(v.prefix + id)
	if v.near == nil {
		return
	}
	if v.store.sweeping() && v.near.suspectOf(id) && v.store.doubt(v.viewState, id) {
		return
	}
	v.near.drop(id)
}

// dropMatching drops what is kept of what a pattern names, and all running flights: a load more does no harm.
func (v *View[V]) dropMatching(pattern string) {
	if v.near != nil {
		v.near.dropMatching(v.name, pattern)
	}
	v.forget()
}

func (v *View[V]) forget() { v.flights.forgetAll() }

// dropKey forgets one entry, for who has changed it.
func (v *View[V]) dropKey(id string) {
	if v.near != nil {
		v.near.drop(id)
	}
	v.flights.forget(v.prefix + id)
}

// reconsider begins to look again at what is kept for id. The function that it returns takes the first bytes of the
// entry and its TTL, read since: the extension itself may not be known here yet.
func (v *View[V]) reconsider(id string) func(raw []byte, ttl time.Duration, ok bool) {
	s := v.store
	now := s.now()
	t := v.near.ticket(s, v.prefix+id, id, now)
	was, kept := v.near.cache.GetIfPresent(id)
	return func(raw []byte, ttl time.Duration, ok bool) {
		if !kept || !ok || len(raw) < headerSize || binary.BigEndian.Uint64(raw[8:]) != uint64(was.rest.header.gen) ||
			binary.BigEndian.Uint64(raw[16:]) != was.rest.header.start || kind(raw[2]) != was.kind ||
			v.gone(&was.rest.header, id) { // and the sweep has not come to it
			v.near.drop(id)
			return
		}
		window := v.staleFor(was.kind)
		left := was.rest.header.own(s.nodeTime(t.slot, now))
		if ttl > 0 {
			left = ttl - window
		}
		kept, end := v.keepUntil(id, t, was.value, was.rest, left, left+window)
		if kept || t.cover != nil && s.now() < end && s.doubt(v.viewState, id) {
			return // in the second case only because others changed that share its fence
		}
		v.near.drop(id)
	}
}

// keep puts a value into the process.
func (v *View[V]) keep(id string, t ticket, value V, e entry) {
	if hot := v.opts.local.HotPerSecond; hot > 0 && v.store.heat.perSecond(v.name, id, v.store.now()) < hot {
		return
	}
	rest := &residentRest{
		header: e.header, tags: e.tags, weight: uint32(min(len(id)+len(e.payload)+residentBytes, 1<<31)), kept: v.store.now(),
	}
	if e.sure <= 0 && e.left > 0 && t.cover != nil {
		v.keepInDoubt(id, t, value, rest, e.left)
		return
	}
	v.keepUntil(id, t, value, rest, e.left, e.sure)
}

// keepInDoubt keeps a value that lives by a TTL extension alone. How long Redis has it is not known until it is looked at.
func (v *View[V]) keepInDoubt(id string, t ticket, value V, rest *residentRest, left time.Duration) {
	s := v.store
	if was, has := v.near.cache.GetIfPresent(id); has && was.cover == t.cover && was.rest.header.gen == rest.header.gen &&
		was.rest.header.start == rest.header.start && s.now() < was.end {
		if was.suspect {
			s.doubt(v.viewState, id)
		}
		return // it may have been looked at since this one was read
	}
	r := v.resident(value, rest, left, left)
	r.suspect = true
	if s.now() < r.end && v.near.keep(id, t, r) && !s.doubt(v.viewState, id) {
		v.near.drop(id)
	}
}

// keepUntil keeps a value that is fresh for so long, and that Redis has for sure.
func (v *View[V]) keepUntil(id string, t ticket, value V, rest *residentRest, left, sure time.Duration) (kept bool, end time.Duration) {
	r := v.resident(value, rest, left, sure)
	return v.store.now() < r.end && v.near.keep(id, t, r), r.end
}

func (v *View[V]) resident(value V, rest *residentRest, left, sure time.Duration) *resident[V] {
	now := v.store.now()
	r := &resident[V]{value: value, rest: rest, kind: rest.header.kind, tags: len(rest.tags) > 1, fresh: now + left}
	if len(rest.tags) > 0 {
		r.tag = rest.tags[0]
	}
	r.end = now + min(left+v.staleFor(r.kind), sure)
	if ttl := v.opts.local.TTL; ttl > 0 {
		r.end = min(r.end, rest.kept+ttl)
	}
	return r
}

// lastKept returns what the process has of id for when the origin fails, too, and puts it into e, which Redis has not
// answered. What others have invalidated since Redis was last heard of may be among it.
func (v *View[V]) lastKept(id string, need scaleaware.Tokens, e *entry) (value V) {
	s := v.store
	if v.near == nil || v.opts.onError == 0 || s.localOff.Load() {
		return value
	}
	r, ok := v.near.cache.GetIfPresent(id)
	if !ok || r.kind != kindValue || r.suspect || s.now() >= min(r.end, r.fresh+v.opts.onError) || !v.fresh(&r.rest.header, need) {
		return value
	}
	for _, tag := range r.rest.tags {
		if tag.dead.Load() {
			return value
		}
	}
	*e = entry{verdict: hit, header: r.rest.header, phase: onError, err: e.err, down: true}
	return r.value
}

func (v *View[V]) matching(pattern string) (entries int) {
	if v.near != nil {
		for id := range v.near.cache.Keys() {
			if globMatch(pattern, v.name+":"+id) {
				entries++
			}
		}
	}
	return entries
}

func (v *View[V]) residents() (entries int, bytes uint64) {
	if v.near == nil {
		return 0, 0
	}
	return v.near.cache.EstimatedSize(), v.near.cache.WeightedSize()
}
