package pairs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRunTakesTurns(t *testing.T) {
	var order []string
	contender := func(name string) Contender {
		return Contender{name, func(context.Context) error {
			order = append(order, name)
			time.Sleep(time.Millisecond) // longer than a turn: one operation each
			return nil
		}}
	}
	results, err := Run(t.Context(), &Options{Total: 1, Turn: 1, MinRounds: 3, AllocRuns: -1}, contender("a"), contender("b"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order[len(order)-12:], ""); got != "aabbbbaaaabb" {
		t.Errorf("the last turns were %s", got)
	}
	for _, r := range results {
		if len(r.Rounds) != 3 || r.Allocs >= 0 || r.Bytes >= 0 {
			t.Errorf("result %+v", r)
		}
	}
	if results[0].Name != "a" || results[1].Name != "b" {
		t.Errorf("results in the order %s, %s", results[0].Name, results[1].Name)
	}
}

// Everybody comes after everybody else, in one round or the other.
func TestOrder(t *testing.T) {
	after := map[[2]int]int{}
	for round := range 1000 {
		o := order(round, 3)
		if len(o) != 3 {
			t.Fatalf("round %d: %v", round, o)
		}
		after[[2]int{o[0], o[1]}]++
		after[[2]int{o[1], o[2]}]++
	}
	for a := range 3 {
		for b := range 3 {
			if n := after[[2]int{a, b}]; a != b && (n < 200 || n > 500) || a == b && n > 0 {
				t.Errorf("%d came after %d %d times of 2000", b, a, n)
			}
		}
	}
	if got := order(0, 1); len(got) != 1 || got[0] != 0 {
		t.Errorf("alone: %v", got)
	}
}

var sink []byte

func TestRunCountsAllocations(t *testing.T) {
	results, err := Run(t.Context(), &Options{Total: 1, MinRounds: 1, AllocRuns: 1000},
		Contender{"none", func(context.Context) error { return nil }},
		Contender{"one", func(context.Context) error { sink = make([]byte, 1024); return nil }},
	)
	if err != nil {
		t.Fatal(err)
	}
	none, one := results[0], results[1]
	if none.Allocs > 0.5 || one.Allocs < 1 || one.Allocs > 1.5 || one.Bytes < 1024 || one.Bytes > 1500 {
		t.Errorf("none: %v allocations; one: %v, of %v bytes", none.Allocs, one.Allocs, one.Bytes)
	}
}

func TestRunEndsAtAnError(t *testing.T) {
	bad := errors.New("broken")
	_, err := Run(t.Context(), nil, Contender{"x", func(context.Context) error { return bad }})
	if !errors.Is(err, bad) || !strings.Contains(err.Error(), "x") {
		t.Errorf("error = %v", err)
	}
	if _, err := Run(t.Context(), nil); err == nil {
		t.Error("no contenders, no error")
	}
}

func TestSpread(t *testing.T) {
	var values []float64
	for i := range 101 {
		values = append(values, float64((i*37)%101)) // 0 to 100, shuffled
	}
	s := SpreadOf(values)
	if s.Median != 50 || s.Q1 != 25 || s.Q3 != 75 || s.N != 101 {
		t.Errorf("%+v", s)
	}
	if s.Low != 40 || s.High != 61 { // 50.5 ± 9.85
		t.Errorf("the median lies between %v and %v", s.Low, s.High)
	}
	if s := SpreadOf([]float64{3}); s.Low != 3 || s.High != 3 || s.Median != 3 {
		t.Errorf("one value: %+v", s)
	}
	if s := SpreadOf(nil); s != (Spread{}) {
		t.Errorf("no value: %+v", s)
	}
}

// A machine that gets slower all the time does not change the ratio.
func TestRatioIsTakenRoundByRound(t *testing.T) {
	var ours, peer Result
	for i := 1; i <= 50; i++ {
		ours.Rounds = append(ours.Rounds, 3*float64(i))
		peer.Rounds = append(peer.Rounds, 2*float64(i))
	}
	if r := Ratio(ours, peer); r.Median != 1.5 || r.Low != 1.5 || r.High != 1.5 {
		t.Errorf("%+v", r)
	}
}
