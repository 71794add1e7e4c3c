package metrics

import (
	"math"
	"testing"
	"time"
)

func TestGrowth(t *testing.T) {
	w := newWindow(KeyMetrics().Rows, 5*time.Minute, false)
	growth := metric(t, "db_size_growth")
	for i := range 500 {
		p := points{}
		p.at(growth.ID, "app", 1)[0] = 1e6 + 1000*float64(i) // a minute: 1.44 MB a day
		w.add(frame{at: epoch.Add(time.Duration(i) * time.Minute), readings: map[string]*reading{"a": {At: int64(i), Points: p}}})
		if got, known := w.values(growth, "")["app"]; known != (i >= 5) || known && math.Abs(got-1.44e6) > 1 {
			t.Fatalf("after %d minutes the growth is %v, known: %v", i, got, known)
		}
	}
	if n := len(w.groups[growth.ID]["app"].tracks[0].slow); n != 73 {
		t.Errorf("%d samples are kept, want those of six hours", n)
	}
}

// Sizes are the square of the step's number, so that the slope over steps from a to b is exactly a + b a step.
func TestGrowthIsOfTheLastSixHours(t *testing.T) {
	const step = 5 * time.Minute
	perDay := func(from, to float64) float64 { return (from + to) * 288 }
	growth := metric(t, "db_size_growth")
	square := func(at time.Duration) float64 { return math.Pow(math.Floor(at.Minutes()/5), 2) }
	for name, test := range map[string]struct {
		every, offset, last time.Duration
		leftOpen            bool
		size                func(at time.Duration) float64
		want                float64
	}{
		"a step six hours ago counts":        {step, 0, 100 * step, false, square, perDay(28, 100)},
		"not in version 3":                   {step, 0, 100 * step, true, square, perDay(29, 100)},
		"a second later it is gone":          {step, 0, 100*step + time.Second, false, square, perDay(29, 100)},
		"also in version 3":                  {step, 0, 100*step + time.Second, true, square, perDay(29, 100)},
		"shortly before the next step":       {step, 0, 101*step - time.Second, false, square, perDay(29, 100)},
		"no tick is ever at a step":          {90 * time.Second, 45 * time.Second, 100*step + 45*time.Second, false, square, perDay(28, 99)},
		"the size is that before the step":   {step, step - time.Second, 101*step - time.Second, false, func(at time.Duration) float64 { return square(at + time.Second) }, perDay(29, 100)},
		"what came later than that does not": {step, time.Second, 100*step + time.Second, false, square, perDay(28, 99)},
	} {
		w := newWindow([]KeyMetric{growth}, step, test.leftOpen)
		see := func(at time.Duration) {
			p, huge := points{}, points{}
			p.at(growth.ID, "app", 1)[0] = test.size(at)
			huge.at(growth.ID, "app", 1)[0] = 1e15
			now := epoch.Add(at)
			w.add(frame{at: now, readings: map[string]*reading{
				"a": {At: now.UnixMilli(), Points: p}, "b": {At: now.UnixMilli(), Points: huge},
			}})
		}
		for at := test.offset; at < test.last; at += test.every {
			see(at)
		}
		see(test.last)
		if got := w.values(growth, "a")["app"]; math.Abs(got-test.want) > 1e-9*test.want {
			t.Errorf("%s: %v a day, want %v", name, got/288, test.want/288)
		}
		if got := w.values(growth, "")["app"]; got != 0 {
			t.Errorf("%s: the largest, which does not change, grows by %v a day", name, got)
		}
	}
}

// Who was asleep for six hours knows the sizes at both ends of them.
func TestGrowthOverALongGap(t *testing.T) {
	growth := metric(t, "db_size_growth")
	w := newWindow([]KeyMetric{growth}, 5*time.Minute, false)
	for _, at := range []time.Duration{-time.Second, slowSpan * time.Millisecond} {
		p := points{}
		p.at(growth.ID, "app", 1)[0] = 1e9 + 4000*at.Round(time.Hour).Hours()
		now := epoch.Add(at)
		w.add(frame{at: now, readings: map[string]*reading{"a": {At: now.UnixMilli(), Points: p}}})
	}
	if got := w.values(growth, "")["app"]; math.Abs(got-24*4000) > 1e-6 {
		t.Errorf("%v a day, want %v", got, 24*4000)
	}
}

func TestGrowthByLeastSquares(t *testing.T) {
	for name, test := range map[string]struct {
		values []float64
		want   float64 // a step
		known  bool
	}{
		"nothing":                    {[]float64{none, none}, 0, false},
		"one value":                  {[]float64{none, 5, none}, 0, false},
		"two":                        {[]float64{none, 5, none, 35}, 15, true},
		"with gaps":                  {[]float64{none, 100, none, none, 400, 500, none, 700}, 100, true},
		"no change is none, exactly": {[]float64{none, .1, .1, .1, .1, .1, .1}, 0, true},
	} {
		got, known := leastSquares(test.values)
		if got != test.want/300 || known != test.known {
			t.Errorf("%s: %v a step, known: %v, want %v", name, got*300, known, test.want)
		}
	}
	awkward := []float64{.1, 1e9 / 7, 1. / 3, none, 3e8 / 11, .7}
	first, _ := leastSquares(awkward)
	for before := range 66 { // Prometheus counts time from the first value, wherever that is
		values := []float64{}
		for range before {
			values = append(values, none)
		}
		if got, _ := leastSquares(append(values, awkward...)); got != first {
			t.Fatalf("%v after %d steps without a value, want %v", got, before, first)
		}
	}
}

func TestGrowthSumsLoseNothing(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{1, 1e100, 1, -1e100}, 2},
		{[]float64{1e100, 1, -1e100, 1}, 2},
		{[]float64{.1, .1, .1, .1, .1, .1, .1, .1, .1, .1}, 1},
		{[]float64{1 << 53, 1, 1, 1}, 1<<53 + 3 + 1}, // which is the nearest that there is
		{[]float64{1, 1, 1, 1 << 53}, 1<<53 + 3 + 1},
		{[]float64{1e16, 3, -1e16}, 3},
		{[]float64{3, 1e16, -1e16}, 3},
	} {
		var k kahan
		for _, v := range test.values {
			k.add(v)
		}
		if got := k.total(); got != test.want {
			t.Errorf("the sum of %v is %v, want %v", test.values, got, test.want)
		}
	}
}
