package cache

import (
	"slices"
	"strings"
	"testing"
)

// Names of tags become hashes, keys and headers: none gets out of its place, and what is too much is refused.
func FuzzTags(f *testing.F) {
	f.Add("customer:7", "customer:8", "1")
	f.Add("", "x", "")
	f.Add(strings.Repeat("t", maxTagBytes), strings.Repeat("t", maxTagBytes+1), "*")
	f.Add("a b", "a\x00b", "{x}")
	s, err := NewLocal(&Options{Prefix: "app:"})
	if err != nil {
		f.Fatal(err)
	}
	var names []string
	v := Of[lead](s, "lead", Tags(func(string, lead) []string { return names }))
	f.Fuzz(func(t *testing.T, a, b, id string) {
		names = []string{a, b, a}
		tags, err := v.tagsFor(id, lead{})
		good := func(name string) bool { return name != "" && len(name) <= maxTagBytes }
		if (err == nil) != (good(a) && good(b)) || (err == nil) != (checkTags(names) == nil) {
			t.Fatalf("%q: %v, and of those who invalidate them %v", names, err, checkTags(names))
		}
		if err != nil {
			if len(tags) > 0 {
				t.Fatal("tags beside an error")
			}
			return
		}
		if want := map[bool]int{true: 1, false: 2}[a == b]; len(tags) != want || tags[0] != hashTag(a) || tags[len(tags)-1] != hashTag(b) {
			t.Fatalf("%q: %x", names, tags)
		}
		for _, tag := range tags {
			key := s.tagKey(tag)
			if !strings.HasPrefix(key, "app:"+metaMark+"tag:") || len(key) > len("app:~tag:")+16 || strings.ContainsAny(key, "{}* ") {
				t.Fatalf("%q has the key %q", names, key)
			}
		}
		h, _, err := parseHeader(appendHeader(nil, header{kind: kindValue, gen: 1, start: 1, tags: tags}))
		if err != nil || !slices.Equal(h.tags, tags) {
			t.Fatalf("%x became %x, %v", tags, h.tags, err)
		}
		names = slices.Repeat([]string{"t"}, maxTags+1)
		if _, err := v.tagsFor(id, lead{}); err == nil {
			t.Fatal("too many tags are taken")
		}
	})
}
