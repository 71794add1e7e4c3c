package metrics

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// every30 makes samples of a function of the time in hours, half a minute apart.
func every30(hours float64, f func(h float64) float64) []sample {
	var out []sample
	for t := 0.0; t <= hours*3600; t += 30 {
		out = append(out, sample{t, f(t / 3600)})
	}
	return out
}

func TestForecast(t *testing.T) {
	ramp := func(from, perHour float64) func(float64) float64 {
		return func(h float64) float64 { return from + perHour*h }
	}
	for name, test := range map[string]struct {
		samples []sample
		hours   float64 // until it is used up; NaN: no forecast
		why     string
	}{
		"a ramp":            {every30(2, ramp(.2, .1)), 6, ""},
		"a leak at the end": {every30(3, ramp(.5, .15)), 1. / 3, ""},
		"used up":           {every30(2, ramp(.9, .1)), 0, ""},
		"nothing":           {nil, math.NaN(), "not enough data: no history"},
		"too short":         {every30(.4, ramp(.2, .5)), math.NaN(), "not enough data: 24 min of history, 30 min"},
		"a long gap":        {append(every30(.1, ramp(.2, .1)), sample{7200, .4}), math.NaN(), "not enough data: "},
		"flat":              {every30(2, ramp(.5, 0)), math.NaN(), "it does not grow"},
		"falling":           {every30(2, ramp(.8, -.1)), math.NaN(), "it does not grow"},
		"too far":           {every30(2, ramp(.2, .05)), math.NaN(), "it grows by 0.05 an hour, and is not used up within 8.0 h"},
		"a day and a night": {every30(3, func(h float64) float64 { return .5 + .3*math.Sin(2*math.Pi*h) }), math.NaN(), "it does not grow"},
		"one step":          {every30(3, func(h float64) float64 { return .3 + .3*math.Floor(h/2.9) }), math.NaN(), "it does not grow"},
	} {
		s, why := forecast(test.samples, 5*time.Minute)
		if !strings.HasPrefix(why, test.why) || (s == nil) != math.IsNaN(test.hours) {
			t.Errorf("%s: %+v, %q, want %q", name, s, why, test.why)
			continue
		}
		if s != nil && math.Abs(s.Seconds-3600*test.hours) > 60 {
			t.Errorf("%s: used up in %v s, want %v h", name, s.Seconds, test.hours)
		}
	}
}

// jitter is around 0, and may remember what it was: memory is the time in which half is forgotten, in steps.
func jitter(random *rand.Rand, deviation, memory float64) func() float64 {
	keep, last := 0.0, 0.0
	if memory > 0 {
		keep = math.Exp2(-1 / memory)
	}
	return func() float64 {
		last = keep*last + math.Sqrt(1-keep*keep)*random.NormFloat64()
		return deviation * last
	}
}

func TestForecastIsSilentAboutNoise(t *testing.T) {
	const seed, runs = 20260101, 500
	for name, memory := range map[string]float64{"white": 0, "of a minute": 2, "of five minutes": 10} {
		random := rand.New(rand.NewPCG(seed, 1))
		spoke := 0
		for i := range runs {
			n := jitter(random, .05, memory)
			s, _ := forecast(every30([]float64{.5, 1, 2, 3}[i%4], func(float64) float64 { return .6 + n() }), 5*time.Minute)
			if s != nil {
				spoke++
			}
		}
		t.Logf("seed %d, noise %s: a forecast in %d of %d runs (%.1f %%)", seed, name, spoke, runs, 100*float64(spoke)/runs)
		if spoke > runs*2/100 {
			t.Errorf("noise %s: a forecast in %d of %d flat runs, at most 2 %% are allowed", name, spoke, runs)
		}
	}
}

func TestForecastHoldsARamp(t *testing.T) {
	const seed, runs = 20260102, 500
	random := rand.New(rand.NewPCG(seed, 2))
	held, spoke := 0, 0
	for range runs {
		perHour, from := .1+.1*random.Float64(), .1+.2*random.Float64()
		n := jitter(random, .02, 0)
		s, _ := forecast(every30(2, func(h float64) float64 { return from + perHour*h + n() }), 5*time.Minute)
		if s == nil {
			continue
		}
		spoke++
		truth := 3600 * ((1-from)/perHour - 2)
		if s.LowSeconds <= truth && (s.HighSeconds == nil || truth <= *s.HighSeconds) {
			held++
		}
	}
	t.Logf("seed %d: a forecast in %d of %d ramps, the truth within its interval in %d", seed, spoke, runs, held)
	if spoke < runs*95/100 || held < spoke*98/100 {
		t.Errorf("a forecast in %d of %d ramps, the truth within its interval in %d", spoke, runs, held)
	}
}

func TestTrendOf(t *testing.T) {
	line := func(n int, f func(i float64) float64) (out []sample) {
		for i := range n {
			out = append(out, sample{10 * float64(i), f(float64(i))})
		}
		return out
	}
	for name, test := range map[string]struct {
		samples []sample
		want    string
		perHour float64
	}{
		"none":    {nil, "unknown", 0},
		"few":     {line(5, func(i float64) float64 { return i }), "unknown", 0},
		"rising":  {line(31, func(i float64) float64 { return 1 + i }), "rising", 360},
		"falling": {line(31, func(i float64) float64 { return 100 - i }), "falling", -360},
		"flat":    {line(31, func(float64) float64 { return 7 }), "steady", 0},
		"little":  {line(31, func(i float64) float64 { return 100 + i/100 }), "steady", 3.6},
		"zigzag":  {line(31, func(i float64) float64 { return math.Mod(i, 2) }), "steady", 0},
	} {
		got := trendOf(test.samples)
		if got.Direction != test.want || math.Abs(orZero(got.PerHour)-test.perHour) > 1e-6 || got.Points != len(test.samples) {
			t.Errorf("%s: %+v, want %s at %v an hour", name, got, test.want, test.perHour)
		}
	}
}

func FuzzForecast(f *testing.F) {
	f.Add(uint64(1), 1.0, .1, uint16(240))
	f.Add(uint64(2), 0.0, 0.0, uint16(360))
	f.Add(uint64(3), 1e30, -1e30, uint16(60))
	f.Fuzz(func(t *testing.T, seed uint64, scale, slope float64, n uint16) {
		if math.IsNaN(scale+slope) || math.Abs(scale) > 1e36 || math.Abs(slope) > 1e30 {
			return // the ring holds single precision
		}
		random := rand.New(rand.NewPCG(seed, 0))
		samples := make([]sample, n%keptSteps)
		for i := range samples {
			samples[i] = sample{30 * float64(i), math.Abs(scale)*random.Float64() + slope*float64(i)}
		}
		s, why := forecast(samples, 5*time.Minute)
		if (s == nil) == (why == "") {
			t.Fatalf("%+v, %q", s, why)
		}
		if s != nil && (!(s.LowSeconds >= 0 && s.LowSeconds <= s.Seconds) || s.HighSeconds != nil && !(*s.HighSeconds >= s.Seconds)) {
			t.Errorf("%+v, %v", s, *s.HighSeconds)
		}
	})
}
