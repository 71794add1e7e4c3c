package metrics

import (
	"slices"
	"testing"
)

// Prometheus keeps the first of what came for a moment, and nothing that is older than what it has.
func TestTrackTakesOnlyWhatIsNewer(t *testing.T) {
	track := trackOf([2]float64{10, 1}, [2]float64{10, 2}, [2]float64{9, 3}, [2]float64{11, 4})
	if !slices.Equal(track.times, []int64{10_000, 11_000}) || !slices.Equal(track.numbers, []float64{1, 4}) {
		t.Errorf("%v at %v, want 1 and 4 at 10 and 11 s", track.numbers, track.times)
	}
}
