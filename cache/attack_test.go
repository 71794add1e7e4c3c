package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/internal/rediscluster"
	"github.com/scaleaware/scaleaware/redisclient"
)

// Classes, negations, backslashes, braces and bytes that are no text reach neither other programs' keys nor the store's own.
func TestHostilePatterns(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		leads := Of[lead](s, "lead")
		if err := rdb.Set(ctx, s.extensionKey(), "mine", time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		strangers(t, ctx, s)
		before := snapshot(t, ctx, s)
		for _, pattern := range []string{
			"[", "]", "[^", "[^]", "[^x]*", "[^:]*", "[a-", "[!-~]*", "[~]*", "~*", `\~*`, "?*", "*?", "?????*", `\`, `\\`, `\*`, `*\`, `[\]*`, `[\`, `\[*`,
			"{asynq}*", "{*", "*}:{*", "{}*", "*{default}*", "\xff*", "[\x80-\xff]*", "*\xc3", "*:*:*", "^*", "[^^]*", "*ession*", "..*", "*/../*", `*"*'*`,
			"*\x00*", "*\r\nFLUSHALL\r\n", "* MATCH *", strings.Repeat("[", 256), strings.Repeat("?", 256), strings.Repeat(`\`, 255) + "*", strings.Repeat("[^", 128),
		} {
			id := fmt.Sprint("one of many for ", len(pattern))
			if err := leads.Set(ctx, id, lead{Score: 1}); err != nil {
				t.Fatal(err)
			}
			report, err := s.Invalidate(ctx, pattern)
			if err != nil && !errors.Is(err, ErrPattern) || err == nil && !report.Complete {
				t.Errorf("%q: %+v, %v", pattern, report, err)
			}
			// What Redis names is what the process drops: the entry is gone from both or in both.
			_, missed := leads.Get(ctx, id)
			if matches := checkPattern(pattern, s.opts.Prefix) == nil && globMatch(pattern, "lead:"+id); errors.Is(missed, ErrMiss) != matches {
				t.Errorf("%q names the entry: %v, and Get says %v", pattern, matches, missed)
			}
		}
		if diff := cmp.Diff(before, snapshot(t, ctx, s)); diff != "" {
			t.Errorf("strangers changed: %s", diff)
		}
		if rdb.Get(ctx, s.extensionKey()).Val() != "mine" {
			t.Error("the store's own state is gone")
		}
	})
}

// hostile are texts that mean something to Lua, to Redis's protocol, to glob patterns or to numbers.
var hostile = []string{
	"\x00", "a\x00b", `"`, `'`, "]]", `]==] .. redis.call("FLUSHALL") --[==[`, "'); redis.call('FLUSHALL') --", "\r\n", "\n*1\r\n$8\r\nFLUSHALL\r\n", "$-1\r\n",
	"1e309", "nan", "-nan", "inf", "-0", "0x10", "1e3", "9223372036854775808", "-1", " ", "\t", "%s%n", "%", "${x}", `\`, `\0`, "*", "?", "[a-z]", "[^", "{", "}", "{}", "{x}",
	"}{", ":", "::", "~", "~rules", "\xff\xfe", "\xc0\x80", "\u00e9", "e\u0301", "ﬀ", "İ", strings.Repeat("x", maxKeyBytes), strings.Repeat("\x00", maxKeyBytes),
}

// Keys, tags and values are data to every script, whatever they look like: each key is one entry, and no other is touched.
func TestHostileKeysAreData(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		s := newStore(t, rdb, nil)
		type text struct{ ID string }
		plain := Of[text](s, "plain")
		tag := func(id string) string { return id[:min(len(id), 256)] } // no two are the same
		tagged := Of[text](s, "tagged", Tags(func(_ string, v text) []string { return []string{v.ID} }))
		strangers(t, ctx, s)
		before := snapshot(t, ctx, s)
		for _, id := range hostile {
			value := text{ID: id}
			if err := plain.Set(ctx, id, value); err != nil {
				t.Fatalf("set %.40q: %v", id, err)
			}
			value.ID = tag(id)
			if err := tagged.Set(ctx, id, value); err != nil {
				t.Fatalf("set %.40q: %v", id, err)
			}
		}
		all, err := plain.GetMany(ctx, hostile)
		if err != nil || len(all) != len(hostile) {
			t.Errorf("%d of %d are there, %v", len(all), len(hostile), err)
		}
		for i, id := range hostile {
			if all[id].ID != string([]rune(id)) { // as JSON has it
				t.Errorf("%.40q came back as %.40q", id, all[id].ID)
			}
			loads := 0
			if err := plain.Delete(ctx, id); err != nil {
				t.Errorf("delete %.40q: %v", id, err)
			}
			got, err := plain.Load(ctx, id, func(context.Context, string) (text, error) { loads++; return text{ID: "loaded"}, nil })
			if err != nil || got.ID != "loaded" || loads != 1 {
				t.Errorf("load %.40q: %v, %d loads, %v", id, got, loads, err)
			}
			if err := s.InvalidateTags(ctx, tag(id)); err != nil {
				t.Errorf("tag %.40q: %v", id, err)
			}
			rest, err := tagged.GetMany(ctx, hostile[i+1:])
			if err != nil || len(rest) != len(hostile)-i-1 {
				t.Fatalf("after the tag %.40q %d of %d are left, %v", id, len(rest), len(hostile)-i-1, err)
			}
			if _, err := tagged.Get(ctx, id); !errors.Is(err, ErrMiss) {
				t.Errorf("the tag %.40q left its entry: %v", id, err)
			}
		}
		if report, err := s.ExtendTTLs(ctx, Extension{}); err != nil || report.Changed < int64(len(hostile)) {
			t.Errorf("extend: %+v, %v", report, err)
		}
		if diff := cmp.Diff(before, snapshot(t, ctx, s)); diff != "" {
			t.Errorf("strangers changed: %s", diff)
		}
	})
}

// The worst patterns that are taken, among a million keys that are made for them: others are still served.
func TestPatternsKeepNobodyWaiting(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	server, err := rediscluster.Start(ctx, &rediscluster.Options{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	s := newStore(t, client(t, server), nil)
	node := server.Nodes()[0].Client()
	for i := range 20 {
		if err := node.Do(ctx, "debug", "populate", 50_000, fmt.Sprint(s.opts.Prefix, "lead:", i), 1).Err(); err != nil {
			t.Fatal(err)
		}
	}
	pipe := node.Pipeline()
	for i := range 2_000 {
		pipe.Set(ctx, s.opts.Prefix+"lead:"+strings.Repeat("a", maxKeyBytes-8)+fmt.Sprint(i), 1, 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	patient := redisclient.Options(server.Addrs()...)
	patient.ReadTimeout = 20 * time.Second // it is to measure, not to give up
	other := redisclient.New(patient)
	defer other.Close()
	var stop atomic.Bool
	var waits []time.Duration
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			began := time.Now()
			if err := other.Get(ctx, "somebody's").Err(); !errors.Is(err, redis.Nil) {
				t.Error(err)
				return
			}
			waits = append(waits, time.Since(began))
		}
	}()
	for _, pattern := range []string{"*", "*a*a*a*a*a*a*a*b", "lead:" + strings.Repeat("a*", 8) + "b", "[^b]*[^b]*[^b]*[^b]*[^b]*[^b]*[^b]*[^a]"} {
		began := time.Now()
		report, err := s.InvalidateWith(ctx, Invalidation{Pattern: pattern, DryRun: true})
		if err != nil || !report.Complete {
			t.Errorf("%q: %+v, %v", pattern, report, err)
		}
		t.Logf("%q named %d keys in %v", pattern, report.Scanned, time.Since(began).Round(time.Millisecond))
	}
	stop.Store(true)
	<-done
	slices.Sort(waits)
	p99, most := waits[len(waits)*99/100], waits[len(waits)-1]
	t.Logf("others waited %v in the median, %v at p99, %v at most, %d times", waits[len(waits)/2], p99, most, len(waits))
	if p99 > 200*time.Millisecond || most > 2*time.Second {
		t.Errorf("others waited %v at p99, %v at most", p99, most)
	}
}
