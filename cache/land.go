package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware"
)

// answer is what becomes of a loader's answer.
type answer struct {
	err     error // the loader's
	header  header
	payload []byte            // encoded value
	store   bool              // it is to be kept
	asOf    scaleaware.Tokens // the value is no older
	wrote   scaleaware.Tokens // by the loader itself, or seen by it where that counts
	settled scaleaware.Tokens // where the primary stood after unknown positions that the fill needed
}

// landing says how storing an answer ended.
type landing struct {
	outcome string            // empty when there was nothing to store
	silent  bool              // Redis did not answer
	need    scaleaware.Tokens // what the load should have seen, where that is why it was refused
}

// settled says that the fill's claim has ended with it.
func (l landing) settled() bool { return l.outcome == "stored" || l.outcome == "fenced" }

// answerOf says what becomes of what the loader of a fill returned under watermark w.
func (v *View[V]) answerOf(ctx context.Context, fl *fill, w *scaleaware.Watermark, value V, err error) answer {
	a := answer{err: err, asOf: w.AsOf()}
	if v.opts.untracked || fl.ageless.Load() || slices.ContainsFunc(a.asOf, scaleaware.Token.Unknown) {
		a.asOf = nil
	}
	noted := w.Changes()
	written, _ := w.Written(ctx)
	if fl.blind == nil {
		for _, t := range fl.need {
			if now := written.For(t.System); t.Unknown() && !now.Unknown() {
				a.settled = append(a.settled, now)
			}
		}
	}
	if noted != fl.noted { // even if fl.need covers it: not all waiters need as much
		a.wrote = written
	}
	a.header, a.payload, a.store = v.prepare(ctx, fl.id, value, err)
	a.header.asOf, a.header.seen = a.asOf, a.wrote
	if slices.ContainsFunc(a.wrote, scaleaware.Token.Unknown) {
		a.store = false // its later readers could not be told what they have seen
	}
	return a
}

// conclude stores what the loader returned and hands it to the waiters. It does not when somebody has overtaken it
// meanwhile: then the fill needs more than before, and is to be loaded again.
func (v *View[V]) conclude(ctx context.Context, fl *fill, f *flight[V], w *scaleaware.Watermark, value V, err error) (again bool) {
	a := v.answerOf(ctx, fl, w, value, err)
	var l landing
	switch {
	case !a.store:
	case v.store.rdb == nil:
		v.keepLoaded(fl, a.header, value, a.payload)
	default:
		l = v.land(ctx, fl, &a)
	}
	if fl.overtakenBy(l, a) {
		return true
	}
	// A refresh that failed leaves its claim: it ends soon, and till then nobody tries again.
	release := !l.settled() && !fl.behind
	if release && !l.silent {
		v.store.release(ctx, fl) // before the waiters go on, who may try again at once
	}
	v.hand(fl, f, a, value)
	if release && l.silent {
		v.store.release(ctx, fl)
	}
	return false
}

// maxReloads bounds how often news may overtake a load. Who was told of them and did not obey is not asked again.
const maxReloads = 3

// overtakenBy reports whether an answer was refused for what the load was not told to see, and tells it.
func (fl *fill) overtakenBy(l landing, a answer) bool {
	if fl.reloads == maxReloads || fl.behind || len(a.asOf) == 0 || known(fl.need).Merge(fl.told).Covers(l.need) {
		return false
	}
	fl.need, fl.told, fl.reloads = fl.need.Merge(l.need), fl.told.Merge(l.need), fl.reloads+1
	fl.ageless.Store(false)
	return true
}

// anew notes that fills are about to be loaded again: what is invalidated by now is no news for these loads.
func (s *Store) anew(ctx context.Context, fills ...*fill) {
	epoch := s.epochNow(ctx, fills[0].tagged)
	for _, fl := range fills {
		fl.epoch = max(fl.epoch, epoch)
	}
}

// hand gives an answer to the waiters.
func (v *View[V]) hand(fl *fill, f *flight[V], a answer, value V) {
	v.flights.finish(fl.key, f, func() {
		f.value, f.payload, f.asOf, f.wrote, f.settled, f.err = value, a.payload, a.asOf, a.wrote, a.settled, a.err
	})
}

// landsAtATime and landBytes bound what is stored in one go.
const (
	landsAtATime = 500
	landBytes    = 1 << 20
)

// concludeMany is conclude for fills whose values were loaded together; value says what each has got, and again are those to be
// loaded again. Each go takes no longer than timeout, and the look-up of its tags no longer than Options.RedisTimeout. What has
// not answered is not asked again by further ones: the waiters have waited for that once.
func (v *View[V]) concludeMany(ctx context.Context, fills []*fill, flights map[string]*flight[V], w *scaleaware.Watermark, value func(id string) (V, error), timeout time.Duration) (again []*fill) {
	if v.store.rdb == nil {
		for _, fl := range fills {
			value, err := value(fl.id)
			v.conclude(ctx, fl, flights[fl.id], w, value, err)
		}
		return nil
	}
	var hung silence
	var late []*fill
	for len(fills) > 0 {
		most := min(len(fills), landsAtATime)
		values, answers := make([]V, 0, most), make([]answer, 0, most)
		for size := 0; len(answers) < most && size < landBytes; {
			fl := fills[len(answers)]
			value, err := value(fl.id)
			a := v.answerOf(ctx, fl, w, value, err)
			values, answers, size = append(values, value), append(answers, a), size+len(a.payload)
		}
		going := fills[:len(answers)]
		fills = fills[len(answers):]
		landings := make([]landing, len(going))
		v.landMany(ctx, going, answers, landings, &hung, timeout)
		var open []*fill
		overtaken := make([]bool, len(going))
		for i, fl := range going {
			if overtaken[i] = fl.overtakenBy(landings[i], answers[i]); overtaken[i] {
				again = append(again, fl)
			} else if !landings[i].settled() {
				open = append(open, fl)
			}
		}
		if hung.keys || slices.ContainsFunc(landings, func(l landing) bool { return l.silent }) {
			late = append(late, open...) // the waiters go first
		} else {
			v.store.releaseMany(ctx, open)
		}
		for i, fl := range going {
			if !overtaken[i] {
				v.hand(fl, flights[fl.id], answers[i], values[i])
			}
		}
	}
	v.store.releaseMany(ctx, late)
	return again
}

// land stores an answer if the fill's lease still stands.
func (v *viewState) land(ctx context.Context, f *fill, a *answer) (l landing) {
	s := v.store
	defer func() { s.in.fills.WithLabelValues(v.name, l.outcome).Inc() }()
	shared := s.storeShared()
	args, l := v.storeArgs(ctx, f, a, shared)
	if len(args) == len(shared) {
		return l
	}
	states, err := s.introduce(ctx, a.header.tags)
	var reply any
	if err == nil {
		if v.refused(states, a.asOf) {
			return refusedBy(states)
		}
		reply, err = s.script(ctx, storeScript.one, f.key, args...)
	}
	return v.stored(ctx, f, reply, err)
}

// silence is what the goes of a batch have waited for in vain.
type silence struct {
	keys, tags bool
}

// errSilentTags says that the master of some tag of the batch has not answered, maybe that of this one.
var errSilentTags = errors.New("cache: the tags of values that were loaded together are not asked for any more, a master has not answered")

// landMany is land for fills that were loaded together. It does not ask for what others of the batch have waited for in vain.
func (v *viewState) landMany(ctx context.Context, fills []*fill, answers []answer, landings []landing, hung *silence, timeout time.Duration) {
	if hung.keys {
		return
	}
	s := v.store
	calls, shared := make([]keyCall, 0, len(fills)), s.storeShared()
	of := make([]int, 0, len(fills))     // of calls, which fill
	args := make([]any, 0, 3*len(fills)) // of all
	var tags []tagHash
	for i, f := range fills {
		a := &answers[i]
		if !a.store {
			continue
		}
		before := len(args)
		if args, landings[i] = v.storeArgs(ctx, f, a, args); len(args) > before {
			calls, of, tags = append(calls, keyCall{key: f.key, shared: shared, args: args[before:]}), append(of, i), append(tags, a.header.tags...)
		}
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	states, errs := s.tagsOfBatch(ctx, tags, hung)
	for n := len(calls) - 1; n >= 0; n-- {
		i := of[n]
		its, err := statesAmong(tags, states, errs, answers[i].header.tags)
		switch {
		case err != nil:
			s.in.failed(ctx, "store", err, "view", v.name)
			landings[i] = landing{outcome: "failed"}
		case v.refused(its, answers[i].asOf):
			landings[i] = refusedBy(its)
		default:
			continue
		}
		calls, of = slices.Delete(calls, n, n+1), slices.Delete(of, n, n+1)
	}
	s.callMany(ctx, storeScript, calls, timeout)
	for n, c := range calls {
		landings[of[n]] = v.stored(ctx, fills[of[n]], c.reply, c.err)
		hung.keys = hung.keys || waitedFor(c.err)
	}
	outcomes := make(map[string]int)
	for _, l := range landings {
		outcomes[l.outcome]++
	}
	delete(outcomes, "") // nothing to store
	for outcome, n := range outcomes {
		s.in.fills.WithLabelValues(v.name, outcome).Add(float64(n))
	}
}

// tagsOfBatch is introduceEach, but for tags that the process does not know after a master of some has not answered.
func (s *Store) tagsOfBatch(ctx context.Context, tags []tagHash, hung *silence) (states []*tagState, errs []error) {
	if !hung.tags {
		states, errs = s.introduceEach(ctx, tags)
		hung.tags = slices.ContainsFunc(errs, waitedFor)
		return states, errs
	}
	states, missing := s.tagsHere(tags, s.now())
	errs = make([]error, len(tags))
	for _, i := range missing {
		errs[i] = errSilentTags
	}
	return states, errs
}

// waitedFor says that a master was asked and has not answered.
func waitedFor(err error) bool { return err != nil && !answered(err) && !errors.Is(err, errBroken) }

// refused reports whether a load is older than what somebody wrote who has invalidated a tag of it.
func (v *viewState) refused(states []*tagState, asOf scaleaware.Tokens) bool {
	s := v.store
	return !v.opts.untracked && slices.ContainsFunc(states, func(t *tagState) bool {
		return t != nil && t.floor.refuses(asOf, s.nodeTime(t.slot, s.now()))
	})
}

// refusedBy is the landing of a load that the floors of its tags refuse.
func refusedBy(states []*tagState) (l landing) {
	l.outcome = "older"
	for _, t := range states {
		if t != nil && t.floor != nil {
			l.need = l.need.Merge(t.floor.tokens)
		}
	}
	return l
}

// statesAmong returns the states of some of all tags, which are sorted, or the error of one.
func statesAmong(all []tagHash, states []*tagState, errs []error, tags []tagHash) ([]*tagState, error) {
	some := make([]*tagState, 0, len(tags))
	for _, tag := range tags {
		i, _ := slices.BinarySearch(all, tag)
		if errs != nil && errs[i] != nil {
			return nil, errs[i]
		}
		some = append(some, states[i])
	}
	return some, nil
}

// storeShared are the arguments of storeScript that are the same for all.
func (s *Store) storeShared() []any {
	_, aged := s.floorTimes()
	return []any{aged}
}

// storeArgs appends the fill's own the arguments of storeScript, or nothing and says how it ended.
func (v *viewState) storeArgs(ctx context.Context, f *fill, a *answer, to []any) ([]any, landing) {
	s := v.store
	if !f.leased {
		return to, landing{outcome: "unleased"}
	}
	rules := s.rules.Load()
	if rules.bars(f.epoch, v.name, f.id) || !v.opts.untracked && rules.refuses(s, a.asOf, v.name, f.id) {
		return to, landing{outcome: "older", need: rules.floorOf(s, f.key)}
	}
	if len(a.payload) > s.opts.MaxValueBytes {
		s.in.failed(ctx, "oversize", fmt.Errorf("%w: %d bytes", ErrTooLarge, len(a.payload)), "view", v.name)
		return to, landing{outcome: "oversize"}
	}
	h := a.header
	payload := v.compress(&h, a.payload)
	h.codec, h.gen, h.start, h.schema, h.epoch = v.opts.codec.ID(), f.gen, f.start, v.schema, f.epoch
	h.cost = costSince(f.began)
	ttl := v.lifeOf(s, f.id, h.kind).into(&h)
	value := append(appendHeader(make([]byte, 0, headerSize+2+2*maxTokens*tokenSize+8*len(h.tags)+len(payload)), h), payload...)
	return append(to, value[:storedFirst], value[storedFirst:], ttl), landing{}
}

// storedFirst is how much of a header storeScript and putScript are given by itself: up to the expiries.
const storedFirst = 40

// costSince is what a load took that has just ended, for the header.
func costSince(began time.Time) uint32 {
	return uint32(min(max(time.Since(began).Microseconds(), 1), 1<<32-1))
}

// stored says what storeScript's answer means. What is newer than the answer is no reason to load again, unless it has been
// invalidated and the answer is for callers who came afterwards.
func (v *viewState) stored(ctx context.Context, f *fill, reply any, err error) landing {
	outcome, ok := reply.(string)
	if tokens, older := strings.CutPrefix(outcome, "older"); older {
		l := landing{outcome: "older"}
		if f.seen.verdict == gone && !v.opts.untracked {
			l.need, _, _ = parseTokens([]byte(tokens), byte(len(tokens)/tokenSize), false)
		}
		return l
	}
	if err == nil && !ok {
		err = errors.New("cache: the store script answered in no known form")
	}
	if err != nil {
		v.store.in.failed(ctx, "store", err, "view", v.name)
		return landing{outcome: "failed", silent: !answered(err)}
	}
	l := landing{outcome: outcome}
	if l.settled() {
		f.claim = 0
	}
	return l
}
