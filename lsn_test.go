package scaleaware

import "testing"

func TestPageStart(t *testing.T) {
	const block, segment = 8192, 16 << 20
	for _, c := range []struct {
		at, want       LSN
		block, segment uint64
	}{
		{7*block + 24, 7 * block, block, segment},
		{7*block + 23, 7*block + 23, block, segment},
		{7*block + 40, 7*block + 40, block, segment},
		{3*segment + 40, 3 * segment, block, segment},
		{3*segment + 41, 3*segment + 41, block, segment},
		{7*block + 24, 7*block + 24, 0, 0},
		{0x729A018, 0x729A000, block, segment},               // as seen on a real server
		{3*segment + 8232, 3*segment + 8232, block, segment}, // 40 within a later page is data
		{0, 0, block, segment},
	} {
		if got := c.at.PageStart(c.block, c.segment); got != c.want {
			t.Errorf("%v.PageStart(%d, %d) = %v, want %v", c.at, c.block, c.segment, got, c.want)
		}
	}
}
