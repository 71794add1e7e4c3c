package plot

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

func chart() Chart {
	return Chart{Name: "test", Title: "Cost & gain", X: "keys", Y: "ms", Note: "today", Series: []Series{
		{"level", []Point{{1000, 5}, {100_000, 5}}}, {"linear", []Point{{1000, 5}, {100_000, 500}}}, {"near", []Point{{1000, 5}, {100_000, 490}}}}}
}

func TestSVGIsWellFormedAndHasEverything(t *testing.T) {
	text, err := chart().SVG()
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"Cost &amp; gain", ">keys<", ">ms<", ">level<", ">linear<", ">100 k<", ">today<"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if again, _ := chart().SVG(); again != text {
		t.Error("the same figures give another picture")
	}
}

// A line that rises has to rise in the picture, where up is down.
func TestPlaces(t *testing.T) {
	a := axis{low: 1, high: 100}
	if a.place(1) != 0 || a.place(10) != .5 || a.place(100) != 1 {
		t.Errorf("1, 10 and 100 of 1 to 100 are at %v, %v, %v", a.place(1), a.place(10), a.place(100))
	}
	b := axis{low: 3, high: 70}
	b.round()
	if b.low != 2 || b.high != 100 {
		t.Errorf("3 to 70 is rounded to %v to %v", b.low, b.high)
	}
	if got := free(100, []float64{95, 109}); got != 123 {
		t.Errorf("a label is at %v", got)
	}
}

func TestWhatCannotBeDrawnIsAnError(t *testing.T) {
	for name, series := range map[string][]Series{"nothing": nil, "an empty line": {{"a", nil}}, "zero": {{"a", []Point{{0, 1}}}}, "below zero": {{"a", []Point{{1, -1}}}}} {
		if _, err := (Chart{Series: series}).SVG(); err == nil {
			t.Errorf("%s is drawn", name)
		}
	}
}
