package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A TTL extension leaves in the process what it keeps, with its new end; what changes meanwhile goes.
func TestExtensionKeepsWhatIsInTheProcess(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		here := running(t, newStore(t, rdb, func(o *Options) { o.Silence = patience }))
		there := running(t, sibling(t, here))
		option := InProcess(Local{})
		a, b := Of[lead](here, "lead", TTL(time.Minute), option), Of[lead](there, "lead", TTL(time.Minute), option)
		const keys = 300
		for i := range keys {
			settled(t, ctx, b, fmt.Sprint(i), loads(lead{Score: int64(i)}))
		}
		kept := func() (n int) {
			for i := range keys {
				if r := inProcess(b, fmt.Sprint(i)); r != nil && r.value.Score == int64(i) {
					n++
				}
			}
			return n
		}
		if n := kept(); n != keys {
			t.Fatalf("%d of %d are kept before", n, keys)
		}
		drops := b.near.cache.EstimatedSize()
		soon := int64(there.now() + time.Minute)
		there.sweepTill.Store(soon) // the news may come later than the first TTL moves, and then what it moves is dropped
		if report, err := here.ExtendTTLs(ctx, Extension{Factor: 3}); err != nil || report.Changed != keys {
			t.Fatalf("%+v, %v", report, err)
		}
		eventually(t, "all are looked at again", func() bool { return kept() == keys })
		if n := b.near.cache.EstimatedSize(); n != drops {
			t.Errorf("%d entries of %d after the extension", n, drops)
		}
		eventually(t, "it is kept as long as Redis has it", func() bool { // the news comes a moment later
			r := inProcess(b, "7")
			return r != nil && r.fresh-there.now() > 2*time.Minute
		})
		eventually(t, "all are kept", func() bool { return kept() == keys }) // what is gone would not come back by this look
		eventually(t, "it is told", func() bool { return there.sweepTill.Load() != soon })
		// While TTLs may move still, what changes goes.
		there.sweepTill.Store(int64(there.now() + time.Minute))
		if err := a.Delete(ctx, "7"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the delete is heard of", func() bool { _, err := b.Get(ctx, "7"); return errors.Is(err, ErrMiss) })
		if err := a.Set(ctx, "8", lead{Score: 800}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the new value is served", func() bool { l, err := b.Get(ctx, "8"); return err == nil && l.Score == 800 })
		if _, err := here.RestoreTTLs(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the old ends are back", func() bool {
			r := inProcess(b, "9")
			return r != nil && r.fresh-there.now() <= time.Minute
		})
	})
}

// ttlAtSet notes the TTL of a key when others are first set.
type ttlAtSet struct {
	pipelines
	ttl func() time.Duration
	at  map[string]time.Duration // by the other key
}

func (n *ttlAtSet) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "set" {
			key := cmd.Args()[1].(string)
			if _, noted := n.at[key]; !noted {
				n.at[key] = n.ttl()
			}
		}
		return err
	}
}

// All processes are told of an extension, and that TTLs move, before the first one does.
func TestExtensionIsAnnouncedBeforeTTLsMove(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		v := Of[lead](s, "lead", TTL(time.Hour), Jitter(0))
		fillStore(t, ctx, v, 1)
		ttl := func() time.Duration { return rdb.PTTL(ctx, v.prefix+"0").Val() }
		set := &ttlAtSet{ttl: ttl, at: map[string]time.Duration{}}
		rdb.AddHook(set)
		if _, err := s.ExtendTTLs(ctx, Extension{Factor: 2, Pattern: "*"}); err != nil {
			t.Fatal(err)
		}
		if ttl() <= time.Hour {
			t.Fatalf("the TTL is %v", ttl())
		}
		for _, key := range []string{s.extensionKey(), s.sweepingKey()} {
			if at := set.at[key]; at <= 0 || at > time.Hour {
				t.Errorf("at %s the TTL was %v", key, at)
			}
		}
	})
}

// A full level stays when TTLs move as fast as Redis can, and when they are taken back.
func TestUrgentExtensionKeepsAll(t *testing.T) {
	const keys = 6000
	ctx := testContext(t)
	here := running(t, newStore(t, client(t, six.Get(t)), func(o *Options) { o.Silence = patience }))
	there := running(t, sibling(t, here))
	a := Of[lead](here, "lead", TTL(time.Minute))
	b := Of[lead](there, "lead", TTL(time.Minute), InProcess(Local{}))
	ids := make([]string, keys)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	if _, err := a.LoadMany(ctx, ids, ofEach(loads(lead{Score: 1}))); err != nil {
		t.Fatal(err)
	}
	kept := func(longerThan time.Duration) (n int) {
		for _, id := range ids {
			if r := inProcess(b, id); r != nil && r.fresh-there.now() > longerThan {
				n++
			}
		}
		return n
	}
	eventually(t, "all are kept", func() bool { _, _ = b.GetMany(ctx, ids); return kept(0) == keys })
	// On a busy machine the news that TTLs move may come later than the first one moves, and the last one when it is over.
	ended := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			there.sweepTill.Store(int64(there.now() + patience))
			select {
			case <-tick.C:
			case <-ended:
				tick.Stop()
				return
			}
		}
	})
	defer telling.Wait()
	defer close(ended)
	for _, step := range []struct {
		name       string
		do         func() (Report, error)
		longerThan time.Duration
	}{
		{"extend", func() (Report, error) { return here.ExtendTTLs(ctx, Extension{Factor: 3}) }, time.Minute},
		{"restore", func() (Report, error) { return here.RestoreTTLs(ctx) }, 0},
	} {
		if report, err := step.do(); err != nil || report.Changed != keys {
			t.Fatalf("%s: %+v, %v", step.name, report, err)
		}
		eventually(t, step.name+" leaves all in the process", func() bool { return kept(step.longerThan) == keys })
		if n := b.near.cache.EstimatedSize(); n != keys {
			t.Errorf("%s: %d of %d are kept", step.name, n, keys)
		}
	}
}

// What waits to be looked at again is bounded by what may be kept.
func TestSuspectsAreBounded(t *testing.T) {
	q, v := newSuspects(), &viewState{opts: viewOptions{local: Local{Entries: 3}}}
	for range 2 {
		for i := range 3 {
			if !q.add(suspect{v, fmt.Sprint(i)}) {
				t.Errorf("no room for %d", i)
			}
		}
	}
	if q.add(suspect{v, "3"}) {
		t.Error("room for more than may be kept")
	}
	if n := len(q.take(make([]suspect, 0, 2))) + len(q.take(make([]suspect, 0, 2))); n != 3 {
		t.Errorf("%d taken of 3", n)
	}
	if !q.add(suspect{v, "3"}) {
		t.Error("no room when all were taken")
	}
}
