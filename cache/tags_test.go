package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func byCustomer(id string, l lead) []string {
	return []string{"customer:" + fmt.Sprint(l.Score), "all"}
}

func TestTags(t *testing.T) {
	inMode(t, func(t *testing.T, rdb redis.UniversalClient, options ...ViewOption) {
		for _, run := range []bool{true, false} {
			ctx := testContext(t)
			here := newStore(t, rdb, nil)
			there := sibling(t, here)
			if run {
				running(t, here)
				running(t, there)
			}
			options := append(options, Tags(byCustomer), StaleIfError(1<<40))
			a, b := Of[lead](here, "lead", options...), Of[lead](there, "lead", options...)
			for i := range 4 {
				id := fmt.Sprint(i)
				eventually(t, "both have it", func() bool { // the first fill after a tag is new may not count
					_, err1 := a.Load(ctx, id, loads(lead{Score: int64(i % 2)}))
					_, err2 := b.Load(ctx, id, loads(lead{Score: int64(i % 2)}))
					_, err3 := b.Get(ctx, id)
					return err1 == nil && err2 == nil && err3 == nil
				})
			}
			if err := here.InvalidateTags(ctx, "customer:1", "nobody's"); err != nil {
				t.Fatal(err)
			}
			for i := range 4 {
				id := fmt.Sprint(i)
				_, err := a.Get(ctx, id)
				if gone := errors.Is(err, ErrMiss); gone != (i%2 == 1) {
					t.Errorf("run %v: key %s in the process that invalidated: %v", run, id, err)
				}
				eventually(t, "the others follow", func() bool { _, err := b.Get(ctx, id); return errors.Is(err, ErrMiss) == (i%2 == 1) })
			}
			fails := func() error {
				_, err := b.LoadMany(ctx, []string{"1"}, func(_ context.Context, _ []string) (map[string]lead, error) { return nil, errors.New("away") })
				return err
			}
			if fails() == nil {
				t.Error("a stale value was served whose tag was invalidated")
			}
			l, err := b.Load(ctx, "1", loads(lead{Score: 5}))
			wantScore(t, l, err, 5)
		}
	})
}

// A load that began before its tag was invalidated is not served after it.
func TestFillBeforeTagInvalidation(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := newStore(t, rdb, nil)
		there := sibling(t, here)
		a, b := Of[lead](here, "lead", Tags(byCustomer)), Of[lead](there, "lead", Tags(byCustomer))
		for i := range 2 { // with a tag that is known, and with one that is not
			id := fmt.Sprint(i)
			g := newGate()
			slow := background(ctx, a, id, g.load)
			<-g.entered
			if err := there.InvalidateTags(ctx, "customer:0"); err != nil {
				t.Fatal(err)
			}
			g.release <- lead{Score: 0}
			<-slow
			if _, err := b.Get(ctx, id); !errors.Is(err, ErrMiss) {
				t.Errorf("key %s: %v", id, err)
			}
		}
	})
}

// A tag that Redis has lost may have been invalidated.
func TestLostTagIsInDoubt(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead", Tags(byCustomer))
		stored := func() bool {
			_, err := leads.Load(ctx, "1", loads(lead{Score: 3}))
			if err != nil {
				t.Fatal(err)
			}
			_, err = leads.Get(ctx, "1")
			return err == nil
		}
		eventually(t, "it is stored", stored)
		if err := s.InvalidateTags(ctx, "customer:3"); err != nil {
			t.Fatal(err)
		}
		raw, err := rdb.Get(ctx, leads.prefix+"1").Bytes() // from before the invalidation
		if err != nil {
			t.Fatal(err)
		}
		if n, err := rdb.Del(ctx, s.tagKey(hashTag("customer:3"))).Result(); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("the tag is lost, and its entry served: %v", err)
		}
		eventually(t, "it is stored anew", stored)
		if err := rdb.Set(ctx, leads.prefix+"1", raw, 0).Err(); err != nil { // it was only lost from sight
			t.Fatal(err)
		}
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("the tag came back, and with it what was invalidated: %v", err)
		}
	})
}

// Look-ups that learn of a tag at the same time bind what they keep to it all the same.
func TestTagLearnedTwice(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		running(t, s)
		leads := Of[lead](s, "lead", Tags(byCustomer), InProcess(Local{}))
		const ids = 64
		for round := range 30 {
			customer := int64(1000 + round)
			tag := fmt.Sprint("customer:", customer)
			if _, err := s.introduce(ctx, []tagHash{hashTag(tag), hashTag("all")}); err != nil {
				t.Fatal(err)
			}
			s.tags.forget(hashTag(tag)) // none of them finds it known
			start := make(chan struct{})
			var wg sync.WaitGroup
			for i := range ids {
				wg.Go(func() {
					<-start
					_, _ = leads.Load(ctx, fmt.Sprint(round, ":", i), loads(lead{Score: customer}))
					_, _ = leads.Load(ctx, fmt.Sprint(round, ":", i), loads(lead{Score: customer}))
				})
			}
			close(start)
			wg.Wait()
			if err := s.InvalidateTags(ctx, tag); err != nil {
				t.Fatal(err)
			}
			for i := range ids {
				if _, err := leads.Get(ctx, fmt.Sprint(round, ":", i)); !errors.Is(err, ErrMiss) {
					t.Fatalf("round %d, key %d: served after its tag was invalidated (%v)", round, i, err)
				}
			}
		}
	})
}

func TestBadTags(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	for _, tag := range []string{"", strings.Repeat("x", maxTagBytes+1)} {
		if err := s.InvalidateTags(ctx, "good", tag); err == nil || !strings.Contains(err.Error(), "give 1 to 256") {
			t.Errorf("%.5q: %v", tag, err)
		}
		leads := Of[lead](s, "lead"+fmt.Sprint(len(tag)), Tags(func(string, lead) []string { return []string{tag} }))
		l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
		wantScore(t, l, err, 1)
		if _, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("a value with a bad tag was stored: %v", err)
		}
	}
	if err := Of[lead](s, "typed", Tags(func(string, string) []string { return nil })).Err(); err == nil || !strings.Contains(err.Error(), "another type") {
		t.Errorf("got %v", err)
	}
}

// failingGets counts the pipelines that look up keys, and makes those of one key fail.
type failingGets struct {
	pipelines
	key    string
	failed atomic.Int64
}

func (f *failingGets) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			if args := cmd.Args(); cmd.Name() == "get" && args[1] == f.key {
				f.failed.Add(1)
				cmd.SetErr(context.DeadlineExceeded)
			}
		}
		return err
	}
}

// The tags of entries that are looked up together are looked up once, and one whose master does not answer is in the way of
// no other.
func TestTagsOfManyAreLookedUpOnce(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead", Tags(func(_ string, l lead) []string { return []string{fmt.Sprint(l.Score)} }))
		ids := []string{"1", "2", "3", "4", "5", "6"}
		for i, id := range ids {
			if err := leads.Set(ctx, id, lead{Score: int64(i % 2)}); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all are there", func() bool { // the first fill after a tag is new may not count
			for i, id := range ids {
				if err := leads.Set(ctx, id, lead{Score: int64(i % 2)}); err != nil {
					t.Fatal(err)
				}
			}
			found, err := leads.GetMany(ctx, ids)
			return err == nil && len(found) == len(ids)
		})
		hook := &failingGets{key: s.tagKey(hashTag("1"))}
		rdb.AddHook(hook)
		found, err := leads.GetMany(ctx, ids)
		var failed KeyErrors
		if !errors.As(err, &failed) || len(failed) != 3 || !errors.Is(failed["2"], context.DeadlineExceeded) {
			t.Errorf("errors: %v", err)
		}
		if len(found) != 3 || found["1"].Score != 0 {
			t.Errorf("found %v", found)
		}
		if n := hook.failed.Load(); n != 1 {
			t.Errorf("the tag was looked up %d times", n)
		}
	})
}

// A store without Redis forgets tags when they are too many. Then a load from before may have one that was invalidated.
func TestLocalTagsAreForgotten(t *testing.T) {
	ctx := testContext(t)
	s := newLocal(t, nil)
	leads, g := Of[lead](s, "lead", InProcess(Local{}), Tags(byCustomer)), newGate()
	slow := background(ctx, leads, "1", g.load)
	<-g.entered
	if err := s.InvalidateTags(ctx, "all"); err != nil {
		t.Fatal(err)
	}
	others := make([]string, maxTagState)
	for i := range others {
		others[i] = fmt.Sprint(i)
	}
	if err := s.InvalidateTags(ctx, others...); err != nil {
		t.Fatal(err)
	}
	g.release <- lead{Score: 1}
	<-slow
	if l, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("served although its tag was invalidated while it was loaded: %+v, %v", l, err)
	}
	l, err := leads.Load(ctx, "1", loads(lead{Score: 2}))
	wantScore(t, l, err, 2)
	l, err = leads.Get(ctx, "1")
	wantScore(t, l, err, 2)
}

// A tag that is used is remembered for longer, before its time is over.
func TestTagInUseIsRemembered(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		first := newStore(t, rdb, nil)
		key := first.tagKey(hashTag("all"))
		use := func(s *Store) time.Duration {
			t.Helper()
			if err := Of[lead](s, "lead", Tags(byCustomer)).Set(ctx, "1", lead{}); err != nil {
				t.Fatal(err)
			}
			return rdb.PTTL(ctx, key).Val()
		}
		use(first)
		for _, c := range []struct {
			left    time.Duration
			renewed bool
		}{{tagLife - 2*tagCheck, false}, {tagCheck, true}} {
			if err := rdb.PExpire(ctx, key, c.left).Err(); err != nil {
				t.Fatal(err)
			}
			s := sibling(t, first)
			if ttl := use(s); (ttl > tagLife-tagCheck) != c.renewed {
				t.Errorf("it had %v, and has %v", c.left, ttl)
			}
			if err := rdb.PExpire(ctx, key, tagCheck).Err(); err != nil {
				t.Fatal(err)
			}
			if ttl := use(s); ttl > tagCheck {
				t.Errorf("a moment later it was looked at again, and has %v", ttl)
			}
			s.born = s.born.Add(-tagCheck)
			if ttl := use(s); ttl < tagLife-tagCheck {
				t.Errorf("in constant use, and has %v", ttl)
			}
		}
	})
}

// When the floor of a tag ends, what was loaded since stays in the process.
func TestEndOfATagsFloorDropsNothing(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, func(o *Options) { o.Silence = patience }))
		v := tagged(t, ctx, s, InProcess(Local{}))
		if err := s.InvalidateTags(wrote(ctx, at(10)), "all"); err != nil {
			t.Fatal(err)
		}
		settled(t, ctx, v, "1", loads(lead{Score: 1}, at(10)))
		if ok, err := rdb.PExpire(ctx, s.tagFloorKey(hashTag("all")), time.Millisecond).Result(); err != nil || !ok {
			t.Fatal(ok, err)
		}
		eventually(t, "the floor ends", func() bool { return rdb.Exists(ctx, s.tagFloorKey(hashTag("all"))).Val() == 0 })
		allHeard(t, ctx, s)
		if inProcess(v, "1") == nil {
			t.Error("it was dropped")
		}
	})
}

// A tag whose master does not answer is in the way of no value of a batch that has it not. Later goes of the batch wait for no
// tag's master again.
func TestSilentTagOfABatchIsInTheWayOfNoOther(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		if _, err := s.introduce(ctx, []tagHash{hashTag("silent"), hashTag("other")}); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for i := range landsAtATime + 2 {
			ids = append(ids, fmt.Sprintf("%04d", i)) // they land in this order
		}
		first, second, last, after := ids[0], ids[1], ids[len(ids)-1], ids[len(ids)-2]
		leads := Of[lead](s, "lead", Tags(func(id string, _ lead) []string {
			switch id {
			case first:
				return []string{"silent"}
			case second, last:
				return []string{"other"}
			default:
				return nil
			}
		}))
		hook := &failingGets{key: s.tagKey(hashTag("silent"))}
		rdb.AddHook(hook)
		if found, err := leads.LoadMany(ctx, ids, ofEach(loads(lead{Score: 1}))); err != nil || len(found) != len(ids) {
			t.Errorf("%d of %d, %v", len(found), len(ids), err)
		}
		if n := hook.failed.Load(); n != 1 {
			t.Errorf("the silent master was asked %d times", n)
		}
		for id, stored := range map[string]bool{first: false, second: true, ids[2]: true, after: true, last: false} {
			if _, err := leads.Get(ctx, id); (err == nil) != stored {
				t.Errorf("key %s: %v, want stored %v", id, err, stored)
			}
		}
	})
}
