package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/redis/go-redis/v9"
)

var (
	tokenA = strings.Repeat("A", 43)
	tokenB = strings.Repeat("B", 42) + "A"
)

func store(t testing.TB, rdb redis.UniversalClient, opts Options) *Store {
	t.Helper()
	return manager(t, rdb, opts).store.(*Store)
}

func TestStoreAlone(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		s := store(t, rdb, Options{})
		expiry := time.Now().Add(time.Hour)
		if _, found, err := s.Find(tokenA); found || err != nil {
			t.Fatalf("found nothing as %v, %v", found, err)
		}
		if err := s.Commit(tokenA, []byte("one"), expiry); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(tokenA, []byte("two\x00\xff"), expiry); err != nil {
			t.Fatal(err)
		}
		if b, found, err := s.Find(tokenA); string(b) != "two\x00\xff" || !found || err != nil {
			t.Fatalf("found %q, %v, %v", b, found, err)
		}
		if ttl := rdb.PTTL(t.Context(), s.opts.Prefix+hash(tokenA)).Val(); ttl <= 59*time.Minute || ttl > time.Hour {
			t.Errorf("lives for %v", ttl)
		}
		if err := s.Delete(tokenA); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(tokenA); err != nil {
			t.Errorf("deleting what is not there: %v", err)
		}
		if _, found, _ := s.Find(tokenA); found {
			t.Error("found after Delete")
		}
		if err := s.Commit(tokenA, []byte("back"), expiry); !errors.Is(err, ErrRevoked) {
			t.Errorf("a writer that does not know of the deletion: %v, want ErrRevoked", err)
		}
		for key := range keys(t, rdb, s.opts.Prefix) {
			if ttl := rdb.PTTL(t.Context(), key).Val(); ttl <= 0 {
				t.Errorf("%s never ends", key)
			}
		}
	})
}

func keys(t testing.TB, rdb redis.UniversalClient, part string) map[string]bool {
	found := map[string]bool{}
	var mu sync.Mutex
	scan := func(ctx context.Context, c *redis.Client) error {
		all := c.Keys(ctx, "*"+part+"*").Val()
		mu.Lock()
		defer mu.Unlock()
		for _, k := range all {
			found[k] = true
		}
		return nil
	}
	var err error
	if c, ok := rdb.(*redis.ClusterClient); ok {
		err = c.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error {
			return errors.Join(scan(ctx, c))
		})
	} else {
		err = scan(t.Context(), rdb.(*redis.Client))
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestNothingIsStoredPastItsDeadline(t *testing.T) {
	rdb := client(t, single)
	s := store(t, rdb, Options{})
	for _, ttl := range []time.Duration{-time.Hour, -time.Nanosecond, 0, time.Microsecond} {
		if err := s.Commit(tokenB, []byte("late"), time.Now().Add(ttl)); !errors.Is(err, ErrRevoked) {
			t.Errorf("expiry in %v: %v, want ErrRevoked", ttl, err)
		}
	}
	if n := rdb.Exists(t.Context(), s.opts.Prefix+hash(tokenB)).Val(); n != 0 {
		t.Error("stored")
	}
}

// What another store or a mistake may have left in Redis for ever.
func TestSessionPastItsDeadlineIsNobody(t *testing.T) {
	rdb := client(t, single)
	a := serve(t, manager(t, rdb, Options{}))
	rdb.Set(t.Context(), a.keyOf(tokenA), encode(t, time.Now().Add(-time.Second), map[string]any{principalKey: "ada"}), 0)
	b := newBrowser(t).with(a, tokenA)
	b.want(a, "who", "")
	b.want(a, "put?key=k&value=v", "put")
	if b.cookie(a) == tokenA || a.counted("load", "expired") != 2 {
		t.Error("the expired session goes on")
	}
}

func TestUndecodableDataIsANewSession(t *testing.T) {
	rdb := client(t, single)
	a := serve(t, manager(t, rdb, Options{}))
	for name, data := range map[string]string{"garbage": "garbage", "empty": "", "cut": string(encode(t, time.Now().Add(time.Hour), map[string]any{"k": "v"})[:40])} {
		rdb.Set(t.Context(), a.keyOf(tokenA), data, time.Hour)
		b := newBrowser(t).with(a, tokenA)
		resp, body := b.response(a, "put?key=k&value=v")
		if resp.StatusCode != 200 || body != "put" || b.cookie(a) == tokenA {
			t.Errorf("%s: answer %d %q", name, resp.StatusCode, body)
		}
		b.want(a, "get?key=k", "v")
	}
	if a.counted("load", "undecodable") != 3 {
		t.Error("not counted")
	}
}

func TestIdleTimeout(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := serve(t, manager(t, rdb, Options{IdleTimeout: 10 * time.Minute}))
		b := newBrowser(t)
		b.call(a, "login?as=ada")
		key := a.keyOf(b.cookie(a))
		left := func() time.Duration { return rdb.PTTL(t.Context(), key).Val() }
		if ttl := left(); ttl <= 9*time.Minute || ttl > 10*time.Minute {
			t.Errorf("after login it lives for %v", ttl)
		}
		rdb.PExpire(t.Context(), key, time.Minute) // nine minutes pass
		b.want(a, "who", "ada")
		if ttl := left(); ttl <= 9*time.Minute {
			t.Errorf("a read did not refresh: %v left", ttl)
		}
		// Near the end of its lifetime the idle timeout must not carry the session beyond it.
		deadline := time.Now().Add(2 * time.Minute)
		rdb.Set(t.Context(), key, encode(t, deadline, map[string]any{principalKey: "ada"}), time.Minute)
		b.want(a, "who", "ada")
		if ttl := left(); ttl <= time.Minute || ttl > 2*time.Minute {
			t.Errorf("with two minutes of lifetime it lives for %v", ttl)
		}
	})
}

// The recipe of scs's users for logging somebody out everywhere.
func TestIterateReachesAllMasters(t *testing.T) {
	onEach(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := serve(t, manager(t, rdb, Options{}))
		browsers := map[*browser]string{}
		for i := range 30 {
			b := newBrowser(t)
			user := fmt.Sprint("user", i%3)
			b.call(a, "login?as="+user)
			browsers[b] = user
		}
		rdb.Set(t.Context(), a.opts.Prefix+"not-a-session", "x", time.Minute)
		seen := map[string]int{}
		err := a.SCS().Iterate(t.Context(), func(ctx context.Context) error {
			user := a.SCS().GetString(ctx, principalKey)
			seen[user]++
			if user == "user1" {
				return a.SCS().Destroy(ctx)
			}
			return nil
		})
		if want := map[string]int{"user0": 10, "user1": 10, "user2": 10}; err != nil || !maps.Equal(seen, want) {
			t.Fatalf("iterated over %v, %v, want %v", seen, err, want)
		}
		for b, user := range browsers {
			if user == "user1" {
				user = ""
			}
			b.want(a, "who", user)
		}
	})
}

func TestMergeValues(t *testing.T) {
	list := func(v ...string) []string { return v }
	base := map[string]any{"same": 1, "mine": 1, "theirs": 1, "both": 1, "gone": 1, "dropped": 1, "list": list("a"), tokensKey: "1:1:0/5"}
	mine := map[string]any{"same": 1, "mine": 2, "theirs": 1, "both": 2, "dropped": 1, "list": list("a", "b"), "added": 1, tokensKey: "1:1:0/7"}
	theirs := map[string]any{"same": 1, "mine": 1, "theirs": 3, "both": 3, "gone": 4, "list": list("a"), "new": 1, tokensKey: "1:1:0/9,2:1:0/1"}
	want := map[string]any{"same": 1, "mine": 2, "theirs": 3, "both": 2, "list": list("a", "b"), "added": 1, "new": 1, tokensKey: "1:1:0/9,2:1:0/1"}
	kept := maps.Clone(theirs)
	if got := mergeValues(base, mine, theirs); !reflect.DeepEqual(got, want) {
		t.Errorf("merged to %v, want %v", got, want)
	}
	if !reflect.DeepEqual(theirs, kept) {
		t.Error("the merge changed its input")
	}
	if got := mergeValues(nil, map[string]any{"a": 1}, nil); !reflect.DeepEqual(got, map[string]any{"a": 1}) {
		t.Errorf("merged to %v", got)
	}
}

func TestMergeKeepsWhicheverDeadlineWasMoved(t *testing.T) {
	at := func(h int) time.Time { return time.Unix(2_000_000_000, 0).Add(time.Duration(h) * time.Hour).UTC() }
	codec := tolerant{scs.GobCodec{}}
	for _, c := range []struct{ base, mine, theirs, want int }{{1, 1, 1, 1}, {1, 2, 1, 2}, {1, 1, 3, 3}, {1, 2, 3, 2}} {
		b, expiry, err := merge(codec, encode(t, at(c.base), nil), encode(t, at(c.mine), nil), encode(t, at(c.theirs), nil), at(c.mine))
		deadline, _, _ := codec.Decode(b)
		if err != nil || !expiry.Equal(at(c.want)) || !deadline.Equal(at(c.want)) {
			t.Errorf("%v: expiry %v, deadline %v, %v", c, expiry, deadline, err)
		}
	}
	if b, _, err := merge(codec, []byte("x"), []byte("mine"), []byte("y"), at(1)); string(b) != "mine" || err != nil {
		t.Errorf("what cannot be decoded: %q, %v, want mine", b, err)
	}
}

func TestWellFormed(t *testing.T) {
	for token, want := range map[string]bool{
		tokenA: true, tokenB: true, strings.Repeat("_-9", 14) + "w": true,
		"": false, tokenA[1:]: false, tokenA + "A": false, tokenA[1:] + "B": false, // bits beyond the 32 bytes
		tokenA[1:] + "=": false, tokenA[1:] + "+": false, tokenA[1:] + "\n": false, "\r\n" + tokenA[2:]: false,
		tokenA[4:] + "\n\n\n\n": false, tokenA[1:] + "*": false, tokenA[1:] + "}": false,
	} {
		if wellFormed(token) != want {
			t.Errorf("wellFormed(%q) = %v", token, !want)
		}
	}
}

func FuzzStoredData(f *testing.F) {
	f.Add(encode(f, time.Now().Add(time.Hour), map[string]any{"k": "v", "n": 1, tokensKey: "1:1:0/1"}))
	f.Add(encode(f, time.Now().Add(-time.Hour), map[string]any{"k": "v"}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		codec := tolerant{scs.GobCodec{}}
		deadline, values, err := codec.Decode(b)
		switch {
		case err == nil && (values == nil || !deadline.After(time.Now())):
			t.Errorf("accepted %v, %v", deadline, values)
		case err != nil && !errors.Is(err, errUndecodable) && !errors.Is(err, errDeadline):
			t.Errorf("error %v", err)
		}
		if _, _, err := merge(codec, b, b, b, deadline); err != nil && slices.Contains(slices.Collect(maps.Keys(values)), "k") {
			t.Errorf("merge: %v", err)
		}
	})
}
