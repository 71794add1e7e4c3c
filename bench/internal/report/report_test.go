package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
)

func section(pkg, ours string) Section {
	return Section{Package: pkg, Facts: []string{"a fact"}, Tables: []Table{{
		Title: "Reads", Note: "A note.", Rows: []Row{{What: "a|b", Goal: "≤ 1", Ours: ours, Met: Missed}},
	}}}
}

func TestUpdateReplacesItsSectionOnly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	for _, s := range []Section{section("one", "old"), section("two", "kept"), section("three", "kept too"), section("one", "new")} {
		if err := s.Update(file); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := preamble + "\n" + section("one", "new").markdown() + "\n" + section("two", "kept").markdown() + "\n" + section("three", "kept too").markdown()
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

func TestMarkdown(t *testing.T) {
	const want = `<!-- begin one -->
## one

- a fact

### Reads

A note.

| what | goal | peer | ours | ratio | met |
|---|---|---|---|---|---|
| a\|b | ≤ 1 | – | x | – | **no** |

<!-- end one -->
`
	if got := section("one", "x").markdown(); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestUpdateRefusesAHalfSection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "RESULTS.md")
	if err := os.WriteFile(file, []byte(closing("one")+"\nprecious\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := section("one", "").Update(file)
	text, _ := os.ReadFile(file)
	if err == nil || !strings.Contains(string(text), "precious") {
		t.Errorf("error %v, file %s", err, text)
	}
}

func TestVerdicts(t *testing.T) {
	s := pairs.Spread{Median: 1, Low: 0.9, High: 1.1, N: 9}
	for i, test := range []struct{ got, want Verdict }{
		{AtMost(1, 1), Met},
		{AtMost(1.01, 1), Missed},
		{AtLeast(0.6, 0.6), Met},
		{AtLeast(0.5, 0.6), Missed},
		{MedianAtMost(s, 1.1), Met},
		{MedianAtMost(s, 1), Unclear},
		{MedianAtMost(s, 0.8), Missed},
		{MedianAtMost(pairs.Spread{}, 1), Unclear},
		{All(), NoGoal},
		{All(Met, NoGoal), Met},
		{All(Unclear, Met), Unclear},
		{All(Missed, Unclear, Met), Missed},
	} {
		if test.got != test.want {
			t.Errorf("%d: %q, want %q", i, test.got, test.want)
		}
	}
}

func TestFigures(t *testing.T) {
	for got, want := range map[string]string{
		Duration(0):            "0 s",
		Duration(80.12):        "80.1 ns",
		Duration(57_234):       "57.2 µs",
		Duration(1_254_000):    "1.25 ms",
		Duration(3.4e9):        "3.40 s",
		Allocations(7.02, 452): "7 allocs, 452 B",
		Count(1.46):            "1.5",
		Count(-0.01):           "0",
		Percent(0.607):         "60.7 %",
		Ratio(pairs.Spread{Median: 1.01, Low: 1, High: 1.02}): "1.010 (1.000 to 1.020)",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
