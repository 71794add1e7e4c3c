package metrics

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// steady makes loads on the line base + perEvent·x.
func steady(n int, base, perEvent float64, x func(i int) float64) []load {
	steps := make([]load, n)
	for i := range steps {
		at := x(i)
		steps[i] = load{at, base + perEvent*at}
	}
	return steps
}

func TestFitDemand(t *testing.T) {
	saw := func(from, to float64) func(int) float64 {
		return func(i int) float64 { return from + (to-from)*float64(i%10)/9 }
	}
	for name, test := range map[string]struct {
		steps                   []load
		why                     string
		perEvent, base, ceiling float64 // of a capacity of 8
	}{
		"exact":             {steady(40, 0, .05, saw(20, 80)), "", .05, 0, 160},
		"others use it":     {steady(40, 2, .05, saw(20, 80)), "", .05, 2, 120},
		"used up by others": {steady(40, 9, .05, saw(20, 80)), "", .05, 9, 0},
		"below zero":        {steady(40, -.5, .05, saw(20, 80)), "", .0416, 0, 192},
		"too few":           {steady(19, 0, .05, saw(20, 80)), "not enough data: 19 observations", 0, 0, 0},
		"too even":          {steady(40, 0, .05, saw(50, 70)), "not enough data: throughput varied by a factor of 1.4", 0, 0, 0},
		"one outlier":       {append(steady(39, 0, .05, saw(50, 55)), load{500, 25}), "not enough data: throughput varied", 0, 0, 0},
		"nothing":           {steady(40, 0, .05, func(int) float64 { return 0 }), "not enough data: 0 requests", 0, 0, 0},
		"too little":        {steady(40, 0, .05, saw(.01, .1)), "not enough data: 66 requests", 0, 0, 0},
		"chance":            {steady(40, 0, .05, saw(.1, .3)), "not enough data: too few requests to tell", 0, 0, 0},
		"does not follow":   {steady(40, 3, 0, saw(20, 80)), "its use does not follow", 0, 0, 0},
		"falls":             {steady(40, 8, -.05, saw(20, 80)), "its use does not follow", 0, 0, 0},
	} {
		d, why := fitDemand(test.steps, 30)
		if !strings.HasPrefix(why, test.why) || (why == "") != (test.why == "") {
			t.Errorf("%s: %q, want %q", name, why, test.why)
			continue
		}
		if why != "" {
			continue
		}
		x, low, high := d.ceiling(8)
		near := func(what string, got, want float64) {
			if math.Abs(got-want) > .01*math.Abs(want)+1e-9 {
				t.Errorf("%s: %s is %v, want %v", name, what, got, want)
			}
		}
		near("demand", d.perEvent, test.perEvent)
		near("base", d.base, test.base)
		near("ceiling", x, test.ceiling)
		if low > x || high < x {
			t.Errorf("%s: ceiling %v outside of %v to %v", name, x, low, high)
		}
	}
}

func TestFitDemandDoesNotFollowChance(t *testing.T) {
	const seed, runs = 7, 1000
	random := rand.New(rand.NewPCG(seed, 0))
	found := 0
	for range runs {
		steps := steady(60, 0, 0, func(int) float64 { return 20 + 60*random.Float64() })
		for i := range steps {
			steps[i].used = 3 + random.NormFloat64()
		}
		if _, why := fitDemand(steps, 30); why == "" {
			found++
		}
	}
	t.Logf("seed %d: a ceiling in %d of %d runs in which use had nothing to do with throughput", seed, found, runs)
	if found > 0 {
		t.Errorf("%d ceilings were made of chance", found)
	}
}

// What is given to others stays the same, whatever the throughput: the interval must hold the true demand.
func TestFitDemandKnowsHowWell(t *testing.T) {
	const seed, runs = 11, 1000
	random := rand.New(rand.NewPCG(seed, 0))
	held := 0
	for range runs {
		steps := steady(60, 1, .05, func(int) float64 { return 20 + 60*random.Float64() })
		for i := range steps {
			steps[i].used += .3 * random.NormFloat64()
		}
		if d, why := fitDemand(steps, 30); why == "" && d.low <= .05 && .05 <= d.high {
			held++
		}
	}
	t.Logf("seed %d: the 95 %% interval held the demand in %d of %d runs", seed, held, runs)
	if held < .93*runs || held > .995*runs {
		t.Errorf("the 95 %% interval held the demand in %d of %d runs", held, runs)
	}
}

func FuzzFitDemand(f *testing.F) {
	f.Add(uint64(1), 1.0, 1.0, uint8(40))
	f.Add(uint64(2), 1e18, 0.0, uint8(255))
	f.Add(uint64(3), 5e-324, 1e300, uint8(21))
	f.Fuzz(func(t *testing.T, seed uint64, scaleX, scaleU float64, n uint8) {
		bound := func(v float64) float64 { return math.Min(math.Abs(v), largest) }
		if math.IsNaN(scaleX) || math.IsNaN(scaleU) {
			return
		}
		random := rand.New(rand.NewPCG(seed, 0))
		steps := make([]load, n)
		for i := range steps {
			steps[i] = load{bound(scaleX) * random.Float64(), bound(scaleU) * random.Float64()}
		}
		d, why := fitDemand(steps, 30)
		if why != "" {
			return
		}
		for _, c := range []float64{0, 1, largest} {
			if x, low, high := d.ceiling(c); !(x >= 0 && low >= 0 && high >= low) {
				t.Errorf("ceiling %v between %v and %v", x, low, high)
			}
		}
	})
}
