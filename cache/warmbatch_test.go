package cache

import (
	"testing"
	"time"
)

func TestNextSize(t *testing.T) {
	for _, c := range []struct {
		n, size, limit int
		took           time.Duration
		want           int
	}{
		{8, 8, 8, time.Millisecond, 32},             // grows, not at once
		{500, 500, 8, time.Millisecond, warmBegins}, // and not for ever
		{32, 32, 8, 800 * time.Millisecond, 20},     // as many as end in time
		{8, 32, 8, 8 * time.Second, 8},              // as many as run at a time begin in any case
		{8, 8, 8, 0, 32},
	} {
		if got := nextSize(c.n, c.size, c.limit, c.took); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
