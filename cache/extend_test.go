package cache

import (
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

func TestExtendAndRestore(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead", TTL(time.Hour), Jitter(0))
		fillStore(t, ctx, leads, 700)
		raw := rdb.Get(ctx, leads.prefix+"0").Val()
		longer, forever, lease := leads.prefix+"longer", leads.prefix+"forever", leads.prefix+"lease"
		for _, err := range []error{
			rdb.Set(ctx, longer, raw, 48*time.Hour).Err(),
			rdb.Set(ctx, forever, raw, 0).Err(),
			rdb.Set(ctx, lease, appendHeader(nil, header{kind: kindLease}), time.Minute).Err(),
			rdb.Set(ctx, s.opts.Prefix+"foreign", "value of another program", time.Minute).Err(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		strangers(t, ctx, s)
		before := snapshot(t, ctx, s)
		near := func(what string, got, want time.Duration) {
			t.Helper()
			if got > want+time.Second || got < want-time.Minute {
				t.Errorf("%s: TTL %v, want %v", what, got, want)
			}
		}
		untouched := func() {
			t.Helper()
			near("lease", rdb.PTTL(ctx, lease).Val(), time.Minute)
			near("foreign value", rdb.PTTL(ctx, s.opts.Prefix+"foreign").Val(), time.Minute)
			if got := rdb.PTTL(ctx, forever).Val(); got != -1 {
				t.Errorf("a key without TTL got one: %v", got)
			}
			if diff := cmp.Diff(before, snapshot(t, ctx, s)); diff != "" {
				t.Errorf("strangers changed: %s", diff)
			}
		}

		dry, err := s.ExtendTTLs(ctx, Extension{DryRun: true})
		if err != nil || dry.Changed != 700 || dry.Skipped != 2 {
			t.Errorf("dry run: %+v, %v", dry, err)
		}
		near("after a dry run", rdb.PTTL(ctx, leads.prefix+"0").Val(), time.Hour)

		for _, round := range []struct {
			name    string
			changed int64
		}{{"first", 700}, {"again", 0}} {
			report, err := s.ExtendTTLs(ctx, Extension{})
			if err != nil || report.Changed != round.changed || !report.Complete {
				t.Errorf("%s: %+v, %v", round.name, report, err)
			}
			near("extended", rdb.PTTL(ctx, leads.prefix+"0").Val(), 2*time.Hour)
			near("longer before", rdb.PTTL(ctx, longer).Val(), 48*time.Hour)
			untouched()
		}

		// New entries follow, in this process and, once it has heard of it, in others.
		there := sibling(t, s)
		if err := there.follow(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := Of[lead](there, "lead", TTL(time.Hour), Jitter(0)).Load(ctx, "new", loads(lead{})); err != nil {
			t.Fatal(err)
		}
		near("new", rdb.PTTL(ctx, leads.prefix+"new").Val(), 2*time.Hour)

		if report, err := s.RestoreTTLsWith(ctx, Restoration{DryRun: true}); err != nil || report.Changed != 702 {
			t.Errorf("dry restore: %+v, %v", report, err)
		}
		report, err := s.RestoreTTLs(ctx)
		if err != nil || report.Changed != 702 {
			t.Errorf("restore: %+v, %v", report, err)
		}
		near("restored", rdb.PTTL(ctx, leads.prefix+"0").Val(), time.Hour)
		near("new, restored", rdb.PTTL(ctx, leads.prefix+"new").Val(), time.Hour)
		untouched()
		if err := there.follow(ctx); err != nil || there.extension.Load().of() != nil {
			t.Errorf("the other process keeps extending: %v", err)
		}
	})
}

// An entry past its own end does not vanish with the undo, it gets a little time.
func TestRestoreLeavesTimeToThosePastTheirEnd(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	s := newStore(t, rdb, nil)
	leads := Of[lead](s, "lead")
	raw := appendHeader(nil, header{kind: kindValue, hard: time.Now().Add(-time.Hour).UnixMilli()})
	if err := rdb.Set(ctx, leads.prefix+"1", raw, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if report, err := s.RestoreTTLs(ctx); err != nil || report.Changed != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if got := rdb.PTTL(ctx, leads.prefix+"1").Val(); got <= 0 || got > restoreGrace {
		t.Errorf("TTL %v", got)
	}
}

func TestExtensionRefused(t *testing.T) {
	rdb := lazy() // refused before anything is asked
	defer rdb.Close()
	s := newStore(t, rdb, nil)
	for _, x := range []Extension{{Factor: 0.5}, {Factor: -1}, {Factor: 101}, {Factor: math.NaN()}, {Factor: math.Inf(1)}, {By: -1}, {By: 8 * 24 * time.Hour}, {Factor: 1}} {
		if _, err := s.ExtendTTLs(t.Context(), x); !errors.Is(err, ErrExtension) {
			t.Errorf("%+v: %v", x, err)
		}
	}
	if _, err := s.ExtendTTLs(t.Context(), Extension{Pattern: "scs:*"}); !errors.Is(err, ErrPattern) {
		t.Errorf("got %v", err)
	}
}

// Who reads the extension slowly does not put it back in force when it was taken back meanwhile.
func TestSlowFollowerOfExtensions(t *testing.T) {
	ctx := testContext(t)
	rdb, h := hindered(t, client(t, one.Get(t)))
	s := newStore(t, rdb, nil)
	if _, err := s.ExtendTTLs(ctx, Extension{Factor: 100}); err != nil {
		t.Fatal(err)
	}
	held, goOn := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	h.after = func(name string) {
		if name == "get" && first.CompareAndSwap(false, true) {
			close(held)
			<-goOn
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.follow(ctx) }()
	<-held
	if _, err := s.RestoreTTLs(ctx); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if err := <-ended; err != nil || s.extension.Load().of() != nil {
		t.Errorf("%+v, %v", s.extension.Load().of(), err)
	}
}

// While an extension has been announced, and the sweep has not come to a node, the process keeps nothing for longer than
// Redis; what lives by the extension alone is kept for as long as Redis says.
func TestProcessKeepsNothingLongerThanRedis(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := running(t, newStore(t, rdb, func(o *Options) { o.Silence = patience }))
		for name, options := range map[string][]ViewOption{"plain": nil, "windows": {StaleWhileRevalidate(3 * time.Second), StaleIfError(5 * time.Second)}} {
			leads := Of[lead](s, name, append(options, TTL(20*time.Second), Jitter(0), InProcess(Local{}))...)
			l, err := leads.Load(ctx, "1", loads(lead{Score: 1}))
			wantScore(t, l, err, 1)
			if err := s.announce(ctx, Extension{Factor: 100, Pattern: "*"}); err != nil {
				t.Fatal(err)
			}
			leads.near.drop("1")
			settled(t, ctx, leads, "1", loads(lead{Score: 2}))
			longest := func() time.Duration {
				r, kept := leads.near.cache.GetIfPresent("1")
				if !kept {
					return 0
				}
				left := rdb.PTTL(ctx, leads.prefix+"1").Val() // before the clock is read, or it would count against it
				return r.end - s.now() - left
			}
			if d := longest(); d > 500*time.Millisecond {
				t.Errorf("%s: kept for %v longer than in Redis", name, d)
			}
			// Past its own end, and extended.
			raw, err := rdb.Get(ctx, leads.prefix+"1").Bytes()
			if err != nil {
				t.Fatal(err)
			}
			h, payload, err := parseHeader(raw)
			if err != nil {
				t.Fatal(err)
			}
			h.soft -= 30_000
			h.start -= 30_000_000
			if err := rdb.Set(ctx, leads.prefix+"1", append(appendHeader(nil, h), payload...), time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is kept again, as long as Redis has it", func() bool {
				l, err := leads.Get(ctx, "1")
				wantScore(t, l, err, 1)
				return inProcess(leads, "1") != nil && longest() > -5*time.Second
			})
			if d := longest(); d > 500*time.Millisecond {
				t.Errorf("%s: kept for %v longer than in Redis, which has extended it", name, d)
			}
			if _, err := s.RestoreTTLs(ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
}
