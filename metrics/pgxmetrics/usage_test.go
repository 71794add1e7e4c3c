package pgxmetrics

import (
	"testing"
	"time"
)

func TestUsageIsWeightedByTime(t *testing.T) {
	var u usage
	const s = time.Second
	u.add(1, 0)
	u.add(1, s)    // 1 s of one
	u.add(-1, 3*s) // 2 s of two
	if n, average, sum := u.sample(5 * s); n != 1 || average != 7.0/5 || sum != 7*s {
		t.Errorf("%d, %v, %v", n, average, sum)
	}
	u.correct(3, 6*s)
	if n, average, sum := u.sample(7 * s); n != 3 || average != 2 || sum != 4*s {
		t.Errorf("%d, %v, %v", n, average, sum)
	}
	u.add(1, 6*s) // a clock that two goroutines read in another order
	if n, average, _ := u.sample(7 * s); n != 4 || average != 4 {
		t.Errorf("%d, %v", n, average)
	}
}
