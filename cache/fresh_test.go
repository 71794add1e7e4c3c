package cache

import (
	"testing"

	"github.com/scaleaware/scaleaware"
)

func TestFresh(t *testing.T) {
	other := scaleaware.Token{System: 8, Timeline: 1, LSN: 5}
	promoted := scaleaware.Token{System: 7, Timeline: 2, LSN: 1}
	for _, c := range []struct {
		name       string
		asOf, need scaleaware.Tokens
		want       bool
	}{
		{"nothing written, age unknown", nil, nil, true},
		{"nothing written", scaleaware.Tokens{at(1)}, nil, true},
		{"written, age unknown", nil, scaleaware.Tokens{at(1)}, false},
		{"as of the write", scaleaware.Tokens{at(5)}, scaleaware.Tokens{at(5)}, true},
		{"older", scaleaware.Tokens{at(4)}, scaleaware.Tokens{at(5)}, false},
		{"written elsewhere only", scaleaware.Tokens{at(4)}, scaleaware.Tokens{other}, true},
		{"written here and elsewhere", scaleaware.Tokens{at(4)}, scaleaware.Tokens{other, at(5)}, false},
		{"entry of a later timeline", scaleaware.Tokens{promoted}, scaleaware.Tokens{at(5)}, false},
		{"entry of an earlier timeline", scaleaware.Tokens{at(5)}, scaleaware.Tokens{promoted}, false},
	} {
		if got := covers(c.asOf, c.need); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func BenchmarkFresh(b *testing.B) {
	asOf, need := scaleaware.Tokens{at(5)}, scaleaware.Tokens{at(4)}
	b.ReportAllocs()
	for b.Loop() {
		covers(asOf, need)
	}
}
