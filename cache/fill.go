package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scaleaware/scaleaware"
)

// fill is one attempt to bring a value from the origin into an entry.
type fill struct {
	key, id string
	need    scaleaware.Tokens // what the loader must see
	blind   error             // why need is not all that the caller wrote
	seen    entry             // what the look-up found
	behind  bool              // nobody waits for it
	tagged  bool              // the view's values have tags
	anyAge  bool              // the view is Untracked
	ticket  ticket            // for a store without Redis

	noted uint64 // the watermark's Changes before the loader

	leased  bool // a lease stands; without it nothing is stored
	offered generation
	gen     generation
	start   uint64
	claim   int64 // until when the load is this fill's; 0 when it has no claim
	doubt   bool  // the claim may have been kept for longer: an answer is not there yet, or was lost
	waited  bool  // for another process's load
	epoch   epoch
	began   time.Time

	ageless atomic.Bool // the loader used something of unknown age

	reloads int               // how often an answer was older than what the load was told of
	told    scaleaware.Tokens // what it was told of then, which unknown positions in need stand for, too
}

type fillKey struct{}

// fillFrom returns the fill whose loader ctx belongs to, or nil.
func fillFrom(ctx context.Context) *fill {
	f, _ := ctx.Value(fillKey{}).(*fill)
	return f
}

// blindSource makes reads under a fill go where they see everything, when it is not known what the caller wrote.
type blindSource struct{ err error }

func (b *blindSource) Position(context.Context) (scaleaware.Token, error) {
	return scaleaware.Token{}, b.err
}

// watch returns the context for the loader, under a watermark of its own: what it saw is the age of the value.
func (f *fill) watch(ctx context.Context) (context.Context, *scaleaware.Watermark) {
	ctx, w := scaleaware.WithWatermark(context.WithValue(ctx, fillKey{}, f))
	for _, t := range f.need {
		w.Raise(t)
	}
	if f.blind != nil {
		w.RaiseFrom(&blindSource{f.blind})
	}
	f.noted = w.Changes()
	f.began = time.Now()
	return ctx, w
}

// leaseTTL outlives a load; one that is made again claims its lease again. A lease that has ended refuses.
func (s *Store) leaseTTL() time.Duration {
	return s.opts.LoadTimeout + 2*s.opts.RedisTimeout + 5*time.Second
}

// claimTTL is how long the others wait for a process that has died while it loaded. Who lives keeps its claim.
const claimTTL = 3 * time.Second

// begun says how a fill began.
type begun int

const (
	elsewhere begun = iota // somebody else loads
	granted
	changed // there is a value that the fill has not seen
)

// beginArgs appends the fill's own arguments of beginScript.
func (f *fill) beginArgs(to []any) []any {
	f.offered = generation(rand.Uint64())
	own := binary.BigEndian.AppendUint64(make([]byte, 0, 8), uint64(f.offered))
	switch {
	case f.seen.verdict == unusable:
		own = append(own, f.seen.bad...)
	case f.seen.verdict >= gone:
		own = binary.BigEndian.AppendUint64(own, uint64(f.seen.header.gen))
		own = binary.BigEndian.AppendUint64(own, f.seen.header.start)
	}
	return append(to, own)
}

// generationAt is what freshGeneration makes of what was offered at a time, Unix microseconds.
func generationAt(offered generation, at int64) generation {
	const second = 1_000_000
	return offered>>32<<32 | generation(at/second%4096*second+at%second)
}

// beginShared are the arguments of beginScript that are the same for all fills that begin together and need as much.
func (s *Store) beginShared(f *fill) []any {
	// Others learn from what was seen in a lease whether the load that it stands for will serve them.
	lease := appendHeader(nil, header{kind: kindLease, seen: known(f.need)})
	claim := claimTTL.Milliseconds()
	if f.blind != nil {
		claim = 0
	}
	ageless, aged := s.floorTimes()
	return []any{lease, ageless, claim, aged}
}

func known(ts scaleaware.Tokens) (known scaleaware.Tokens) {
	for _, t := range ts {
		if !t.Unknown() {
			known = append(known, t)
		}
	}
	return known
}

// begin leaves the fill's lease, or joins the one that stands, and claims the load.
func (s *Store) begin(ctx context.Context, f *fill) (how begun, raw []byte, wait time.Duration, err error) {
	f.epoch = s.epochNow(ctx, f.tagged)
	reply, err := s.script(ctx, beginScript.one, f.key, f.beginArgs(s.beginShared(f))...)
	if err != nil {
		return 0, nil, 0, err
	}
	return s.began(f, reply)
}

// began takes in the answer of beginScript.
func (s *Store) began(f *fill, reply any) (how begun, raw []byte, wait time.Duration, err error) {
	if start, ok := reply.(int64); ok { // on the lease that it has offered
		s.ahead.Store(start - s.now().Microseconds())
		f.leased, f.gen, f.start = true, generationAt(f.offered, start), uint64(start)
		if f.blind == nil {
			f.claim = start/1000 + claimTTL.Milliseconds()
		}
		s.heedFloor(f)
		return granted, nil, 0, nil
	}
	text, start, how, err := beginReply(reply)
	if err != nil {
		return 0, nil, 0, err
	}
	if s.ahead.Load() == 0 || how == granted {
		s.ahead.Store(start - s.now().Microseconds())
	}
	h, _, err := parseHeader([]byte(text))
	if err != nil {
		return granted, nil, 0, nil // changed under us into something unusable: load, store nothing
	}
	if how == changed {
		return changed, []byte(text), 0, nil
	}
	f.leased, f.gen, f.start = true, h.gen, uint64(start)
	f.epoch = max(f.epoch, h.epoch) // the clock was there before the value, which else would be the newer one for ever
	if how == elsewhere {
		if serves := h.kind == kindLease && h.seen.Covers(f.need); serves || len(f.need) == 0 {
			return elsewhere, nil, time.Duration(h.claim-start/1000) * time.Millisecond, nil
		}
	} else if f.blind == nil {
		f.claim = h.claim
	}
	if h.kind == kindLease && !f.anyAge {
		for _, t := range h.asOf {
			if !t.Unknown() { // else this load is not stored, but others than the writer need not go to the primary
				f.need = f.need.Merge(scaleaware.Tokens{t})
			}
		}
	}
	s.heedFloor(f)
	return granted, nil, 0, nil
}

// heedFloor makes a load ask for what invalidations of its key by callers who wrote do.
func (s *Store) heedFloor(f *fill) {
	if !f.anyAge {
		f.need = f.need.Merge(s.rules.Load().floorOf(s, f.key))
	}
}

func beginReply(reply any) (text string, start int64, how begun, err error) {
	if reply, ok := reply.([]any); ok && len(reply) == 3 {
		text, ok1 := reply[0].(string)
		start, ok2 := reply[1].(int64)
		how, ok3 := reply[2].(int64)
		if ok1 && ok2 && ok3 {
			return text, start, begun(how), nil
		}
	}
	return "", 0, 0, errors.New("cache: the begin script answered in no known form")
}

// keepClaims goes on claiming loads that take long, until it is stopped.
func (s *Store) keepClaims(ctx context.Context, fills ...*fill) (stop func()) {
	claimed := slices.DeleteFunc(fills, func(f *fill) bool { return f.claim == 0 })
	if len(claimed) == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex // of the fills' claims, until it is stopped
	go func() {
		ticker := time.NewTicker(claimTTL / 3)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if !s.keepOnce(ctx, &mu, claimed) {
				return
			}
		}
	}()
	return func() { // and does not wait for a server that hangs
		mu.Lock()
		defer mu.Unlock()
		cancel()
	}
}

// keepOnce claims the loads for claimTTL from now on. It returns false when ctx has ended; then the fills are not its to change.
func (s *Store) keepOnce(ctx context.Context, mu *sync.Mutex, fills []*fill) bool {
	calls := make([]keyCall, len(fills))
	change := func(what func(f *fill, c *keyCall)) bool {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		for i, f := range fills {
			what(f, &calls[i])
		}
		return true
	}
	asked := change(func(f *fill, c *keyCall) {
		*c = keyCall{key: f.key, args: append(claimArgs(f, claimTTL), s.leaseTTL().Milliseconds())}
		f.doubt = true
	})
	if !asked {
		return false
	}
	s.callMany(ctx, keyScript{one: claimScript}, calls, s.opts.RedisTimeout)
	return change(func(f *fill, c *keyCall) {
		if till, _ := c.reply.(int64); till != 0 { // 0 may be the answer to what the client has sent twice
			f.claim, f.doubt = till, false
		}
	})
}

// claimArgs are the arguments of claimScript; d 0 gives the claim up.
func claimArgs(f *fill, d time.Duration) []any {
	gen := binary.BigEndian.AppendUint64(nil, uint64(f.gen))
	claim := binary.BigEndian.AppendUint64(nil, uint64(f.claim))
	unheard := int64(0)
	if f.doubt {
		unheard = claimTTL.Milliseconds() - 1
	}
	return []any{gen, claim, d.Milliseconds(), unheard}
}

// givenUp takes the claim from the fill and returns the arguments of claimScript that give it up. What stands there afterwards is
// another's, and could be taken for one that was kept unheard.
func givenUp(f *fill) []any {
	args := claimArgs(f, 0)
	f.claim = 0
	return args
}

// release lets others load at once.
func (s *Store) release(ctx context.Context, f *fill) {
	if f.claim == 0 {
		return
	}
	args := givenUp(f)
	err := s.call(ctx, f.key, func(ctx context.Context) error {
		return claimScript.Run(ctx, s.rdb, []string{f.key}, args...).Err()
	})
	if err != nil {
		s.in.failed(ctx, "lease", err)
	}
}

// releaseMany is release for fills that went together.
func (s *Store) releaseMany(ctx context.Context, fills []*fill) {
	var calls []keyCall
	for _, f := range fills {
		if f.claim != 0 {
			calls = append(calls, keyCall{key: f.key, args: givenUp(f)})
		}
	}
	s.callMany(ctx, keyScript{one: claimScript}, calls, s.opts.RedisTimeout)
	for _, c := range calls {
		if c.err != nil {
			s.in.failed(ctx, "lease", c.err)
		}
	}
}
