package cache

import (
	"errors"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestPatternRefused(t *testing.T) {
	for _, p := range []string{"", "app:*", "asynq:*", "scs:session:*", "lead\n*", "a b", strings.Repeat("a", 257), strings.Repeat("*a", 9)} {
		if err := checkPattern(p, "app:"); !errors.Is(err, ErrPattern) || !strings.Contains(err.Error(), "give") {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []string{"*", "lead:*", "lead:4?", "lead:[0-9]*", `lead:\*`, "lead:ü"} {
		if err := checkPattern(p, "app:"); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// Redis decides which keys a sweep names, globMatch which new entries a TTL extension reaches: they must agree.
func TestGlobMatchesAsRedisDoes(t *testing.T) {
	ctx, rdb := testContext(t), client(t, one.Get(t)).(*redis.Client)
	names := []string{"a", "b", "ab", "aab", "abc", "a*", `a\`, "a]", "[a", "a-", "^a", "lead:1", "lead:10", "lead:2:x", "leads:1", "é", "a?b"}
	patterns := []string{"*", "a*", "*b", "a?", "?", "a*b*", "[a-b]", "[^a]*", "[b-a]", `\*`, `a\*`, `a\`, "[a", "[", "[]", "[^]", "[]a]", `[\]]`, "a[b]c",
		"lead:*", "lead:1*", "lead:?", "*:1", "**", "*?*", "a[*]", "[a-", "[a-]", "^a", "é", "??", "a**b", "[^]a]", `[\a-c]`, "*a*b*"}
	prefix := newPrefix()
	for _, n := range names {
		if err := rdb.Set(ctx, prefix+n, 1, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range patterns {
		found, err := rdb.Keys(ctx, prefix+p).Result()
		if err != nil {
			t.Fatal(err)
		}
		byRedis := map[string]bool{}
		for _, key := range found {
			byRedis[strings.TrimPrefix(key, prefix)] = true
		}
		for _, n := range names {
			if got := globMatch(p, n); got != byRedis[n] {
				t.Errorf("%q and %q: got %v, Redis says %v", p, n, got, byRedis[n])
			}
		}
	}
}

// plainGlob is globMatch by trying every way, in as few words as can be: star by star, and a class as the set of its bytes.
func plainGlob(p, s string) bool {
	if p == "" {
		return s == ""
	}
	if p[0] == '*' {
		for i := range len(s) + 1 {
			if plainGlob(p[1:], s[i:]) {
				return true
			}
		}
		return false
	}
	if s == "" {
		return false
	}
	var set [256]bool
	rest := p[1:]
	switch {
	case p[0] == '?':
		return plainGlob(rest, s[1:])
	case p[0] == '\\' && rest != "":
		set[rest[0]], rest = true, rest[1:]
	case p[0] == '[':
		not := strings.HasPrefix(rest, "^")
		rest = strings.TrimPrefix(rest, "^")
		for rest != "" && rest[0] != ']' {
			switch {
			case rest[0] == '\\' && len(rest) > 1:
				set[rest[1]], rest = true, rest[2:]
			case len(rest) > 2 && rest[1] == '-':
				for c := int(min(rest[0], rest[2])); c <= int(max(rest[0], rest[2])); c++ {
					set[c] = true
				}
				rest = rest[3:]
			default:
				set[rest[0]], rest = true, rest[1:]
			}
		}
		rest = strings.TrimPrefix(rest, "]")
		for c := range set {
			set[c] = set[c] != not
		}
	default:
		set[p[0]] = true
	}
	return set[s[0]] && plainGlob(rest, s[1:])
}

func FuzzGlob(f *testing.F) {
	f.Add("lead:*", "lead:1")
	f.Add(strings.Repeat("*a", 100), strings.Repeat("a", 1000))
	for _, p := range []string{`[^\`, `\*`, `a\*b`, `\\`, `\`, `\a`, `*\?`, `[\]]`, `[a-\]`, "[]", "[^]", "[a-", "[b-a]", `\[a]`} {
		for _, s := range []string{"x", "*", "a*b", `\`, "a", "?", "]", "[a]", ""} {
			f.Add(p, s)
		}
	}
	f.Fuzz(func(t *testing.T, p, s string) {
		got := globMatch(p, s)
		if !strings.ContainsAny(p, `*?[\`) && got != (p == s) {
			t.Fatalf("%q and %q: got %v", p, s, got)
		}
		if !globMatch("*"+p, s+s) && globMatch(p, s+s) {
			t.Fatalf("a star in front of %q loses %q", p, s+s)
		}
		if len(p) <= 32 && len(s) <= 32 && strings.Count(p, "*") <= 4 && got != plainGlob(p, s) {
			t.Fatalf("%q and %q: got %v", p, s, got)
		}
		literal := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
		if !globMatch(literal, s) || literal != s && len(s) > 0 && globMatch(literal, s+"x") {
			t.Fatalf("%q, escaped, is %q, which does not match it alone", s, literal)
		}
	})
}
