package metrics

import (
	"math"
	"testing"
)

func TestBucketQuantile(t *testing.T) {
	bounds := []float64{.1, .2, .5}
	for name, test := range map[string]struct {
		q        float64
		counts   []float64
		want     float64
		leftOpen bool
	}{
		"exactly at a boundary":       {.95, []float64{0, 95, 100, 100}, .2, false},
		"one fewer":                   {.95, []float64{0, 94, 100, 100}, .25, false},
		"in the first bucket":         {.5, []float64{100, 100, 100, 100}, .05, false},
		"above the last boundary":     {.95, []float64{0, 0, 0, 100}, .5, false},
		"empty buckets between":       {.95, []float64{10, 10, 100, 100}, .2 + .3*85/90, false},
		"at one, the rest far":        {.95, []float64{0, 95, 95, 100}, .2, false},
		"nothing":                     {.95, []float64{0, 0, 0, 0}, math.NaN(), false},
		"fewer than the one before":   {.5, []float64{40, 30, 100, 100}, .2 + .3*10/60, false},
		"and all are fewer":           {.5, []float64{40, 30, 20, 10}, .05, false},
		"almost equal":                {1, []float64{0, 50, 50 + 5e-12, 50 + 5e-12}, .5, false},
		"version 3 takes it for so":   {1, []float64{0, 50, 50 + 5e-12, 50 + 5e-12}, .2, true},
		"also where it is less":       {1, []float64{0, 50, 50 - 5e-12, 50 - 5e-12}, .2, true},
		"by a part in 10¹² it is not": {1, []float64{499_999_999_999.5, 500_000_000_000.5, 500_000_000_000.5, 500_000_000_000.5}, .2, true},
		"nothing, in version 3":       {.95, []float64{0, 0, 0, 0}, math.NaN(), true},
	} {
		got := arithmetic{leftOpen: test.leftOpen}.bucketQuantile(test.q, bounds, test.counts)
		if math.Abs(got-test.want) > 1e-12 && !(math.IsNaN(got) && math.IsNaN(test.want)) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	if got := (arithmetic{}).bucketQuantile(.95, nil, []float64{100}); !math.IsNaN(got) {
		t.Errorf("%v of a histogram without a boundary, want NaN", got)
	}
}
