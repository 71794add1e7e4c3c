package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

	noted uint64 // the watermark's Changes before the loader

	leased bool // a lease stands; without it nothing is stored
	gen    generation
	start  uint64

	ageless atomic.Bool // the loader used something of unknown age
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
	return ctx, w
}

// leaseTTL outlives any load. A lease that has ended refuses.
func (s *Store) leaseTTL() time.Duration {
	return s.opts.LoadTimeout + 2*s.opts.RedisTimeout + 5*time.Second
}

// begin leaves the fill's lease, or joins the one that stands. When another fill has landed meanwhile, its raw
// value is returned.
func (s *Store) begin(ctx context.Context, f *fill) (raw []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	lease := appendHeader(nil, header{kind: kindLease, gen: generation(rand.Uint64())})
	reply, err := beginScript.Run(ctx, s.rdb, []string{f.key}, lease, s.leaseTTL().Milliseconds(), f.seen.bad).Slice()
	if err != nil {
		return nil, err
	}
	text, start, err := beginReply(reply)
	if err != nil {
		return nil, err
	}
	h, _, err := parseHeader([]byte(text))
	if err != nil {
		return nil, nil // changed under us into something unusable: load, store nothing
	}
	f.leased, f.gen, f.start = true, h.gen, uint64(start)
	if h.kind == kindLease {
		for _, t := range h.asOf {
			if !t.Unknown() { // else this load is not stored, but others than the writer need not go to the primary
				f.need = f.need.Merge(scaleaware.Tokens{t})
			}
		}
		return nil, nil
	}
	return []byte(text), nil
}

func beginReply(reply []any) (text string, start int64, err error) {
	if len(reply) == 2 {
		text, ok1 := reply[0].(string)
		start, ok2 := reply[1].(int64)
		if ok1 && ok2 {
			return text, start, nil
		}
	}
	return "", 0, errors.New("cache: the begin script answered in no known form")
}

// land stores the loader's answer if the lease still stands.
func (v *viewState) land(ctx context.Context, s *Store, f *fill, h header, payload []byte) {
	outcome := "unleased"
	if f.leased {
		var err error
		if outcome, err = v.store(ctx, s, f, h, payload); err != nil {
			outcome = "failed"
			s.in.failed(ctx, "store", err, "view", v.name)
		}
	}
	s.in.fills.WithLabelValues(v.name, outcome).Inc()
}

func (v *viewState) store(ctx context.Context, s *Store, f *fill, h header, payload []byte) (string, error) {
	if len(payload) > s.opts.MaxValueBytes {
		s.in.failed(ctx, "oversize", fmt.Errorf("%w: %d bytes", ErrTooLarge, len(payload)), "view", v.name)
		return "oversize", nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.RedisTimeout)
	defer cancel()
	h.codec, h.gen, h.start, h.schema = v.opts.codec.ID(), f.gen, f.start, v.schema
	ttl := v.opts.ttl
	if h.kind == kindNegative {
		ttl = v.opts.negative
	}
	own, physical := v.lifetime(s, f.id, ttl)
	value := append(appendHeader(make([]byte, 0, headerSize+1+2*maxTokens*tokenSize+len(payload)), h), payload...)
	return storeScript.Run(ctx, s.rdb, []string{f.key}, value, own.Milliseconds(), physical.Milliseconds()).Text()
}

// lifetime returns an entry's own TTL, jittered, and the one to give it in Redis, which a TTL extension lengthens.
func (v *viewState) lifetime(s *Store, id string, ttl time.Duration) (own, physical time.Duration) {
	own = max(ttl-time.Duration(rand.Float64()*v.opts.jitter*float64(ttl)), time.Millisecond)
	physical = own
	if x := s.extension.Load(); x != nil && globMatch(x.Pattern, v.name+":"+id) {
		physical = x.stretch(own)
	}
	return own, physical
}
