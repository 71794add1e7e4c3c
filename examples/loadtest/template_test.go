package main

import (
	"fmt"
	"regexp"
	"testing"
)

func TestFill(t *testing.T) {
	vars := map[string]any{"id": "abc", "revision": 3.0}
	for text, want := range map[string]string{
		"/leads/{{ id }}":                     `^/leads/abc$`,
		"{{revision}}":                        `^3$`,
		"u{{ $randomNumber(5, 6) }}-{{ id }}": `^u[56]-abc$`,
		"plain":                               `^plain$`,
	} {
		if got := fill(text, vars); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestExtract(t *testing.T) {
	body := []byte(`{"id":"a","leads":[{"id":"b"},{"id":"c"}],"none":[]}`)
	for path, want := range map[string][]any{"$.id": {"a"}, "$.leads[*].id": {"b", "c"}, "$.none[*].id": {}, "$.other": {}, "$.id.deeper": {}} {
		seen := map[any]bool{}
		for range 50 {
			if got, ok := extract(body, path); ok {
				seen[got] = true
			}
		}
		if len(seen) != len(want) {
			t.Errorf("%s: %v, want %v", path, seen, want)
		}
		for _, value := range want {
			if !seen[value] {
				t.Errorf("%s never was %v", path, value)
			}
		}
	}
	if got, ok := extract([]byte(`no json`), "$.id"); ok {
		t.Error(fmt.Sprint(got))
	}
}
