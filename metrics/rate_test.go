package metrics

import (
	"math"
	"testing"
)

// trackOf is one of a single number, with samples of times in seconds.
func trackOf(samples ...[2]float64) *track {
	t := &track{width: 1}
	for _, s := range samples {
		t.put(int64(1000*s[0]), []float64{s[1]})
	}
	return t
}

// What is expected is what Prometheus says to increase(…[21s]) at second 21, or later: two samples ten seconds apart
// are followed by a third within eleven, or the series begins or ends half way to it.
func TestRateIsExtrapolatedToTheRange(t *testing.T) {
	v2, v3 := arithmetic{21_000, false}, arithmetic{21_000, true}
	for name, test := range map[string]struct {
		arithmetic
		now     float64
		samples [][2]float64
		want    float64
	}{
		"the next sample is not due yet": {v2, 20.999, [][2]float64{{0, 1e6}, {10, 1e6 + 10}}, 10 * (10 + .001 + 10.999) / 10},
		"it is":                          {v2, 21, [][2]float64{{0, 1e6}, {10, 1e6 + 10}}, 10 * (10 + 0 + 5) / 10.},
		"one before the first would not be in the range": {v2, 21, [][2]float64{{10.001, 1e6}, {20.001, 1e6 + 10}}, 10 * (10 + 10.001 + .999) / 10},
		"it would":                 {v2, 21, [][2]float64{{11, 1e6}, {21, 1e6 + 10}}, 10 * (10 + 5 + 0) / 10.},
		"the same as of version 3": {v3, 21, [][2]float64{{11, 1e6}, {21, 1e6 + 10}}, 10 * (10 + 5 + 0) / 10.},
		"it was at zero less than a sample before":         {v2, 21, [][2]float64{{11, 7}, {21, 17}}, 10 * (10 + 7 + 0) / 10.},
		"version 3 thinks of half an interval first":       {v3, 21, [][2]float64{{11, 7}, {21, 17}}, 10 * (10 + 5 + 0) / 10.},
		"it was at zero less than half an interval before": {v3, 21, [][2]float64{{11, 3}, {21, 13}}, 10 * (10 + 3 + 0) / 10.},
		"it begins at zero":                                {v2, 21, [][2]float64{{11, 0}, {21, 10}}, 10},
		"it stands still at zero":                          {v2, 21, [][2]float64{{11, 0}, {21, 0}}, 0},
		"it stands still":                                  {v2, 21, [][2]float64{{11, 7}, {21, 7}}, 0},
		"it begins again":                                  {v2, 21, [][2]float64{{1, 100}, {11, 4}, {21, 9}}, 9 * (20 + 1 + 0) / 20.},
		"a sample where the range begins":                  {v2, 21, [][2]float64{{0, 1e6}, {21, 1e6 + 10}}, 10},
		"version 3 leaves it out":                          {v3, 21, [][2]float64{{0, 1e6}, {21, 1e6 + 10}}, -1},
		"one sample":                                       {v2, 21, [][2]float64{{21, 1e6}}, -1},
	} {
		got, ms := []float64{-1}, int64(1000*test.now)
		if known := test.increase(got, trackOf(test.samples...), ms); math.Abs(got[0]-test.want) > 1e-12 || known != (test.want >= 0) {
			t.Errorf("%s: %v, known: %v, want %v", name, got[0], known, test.want)
		}
		perSecond := []float64{-21}
		if test.rate(perSecond, trackOf(test.samples...), ms); math.Abs(perSecond[0]-test.want/21) > 1e-12 && test.want >= 0 {
			t.Errorf("%s: %v a second, want %v in 21", name, perSecond[0], test.want)
		}
	}
}
