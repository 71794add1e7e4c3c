package queue

import (
	"strings"
	"testing"
	"time"
)

// Rules are valid up to their bounds, and just past each the error names what is wrong.
func TestScaleRuleBounds(t *testing.T) {
	t.Parallel()
	depth := func(change func(*ScaleRule)) ScaleRule {
		r := ScaleRule{Queue: "q", Above: 10, Up: 5, Below: 3, Down: 2}
		change(&r)
		return r
	}
	latency := func(change func(*ScaleRule)) ScaleRule {
		r := ScaleRule{Queue: "q", Latency: time.Minute, Min: 1, Max: 9}
		change(&r)
		return r
	}
	for _, good := range []ScaleRule{
		depth(func(r *ScaleRule) { r.Above, r.Below = 1, 0 }),
		depth(func(r *ScaleRule) { r.Below = 10 }),
		depth(func(r *ScaleRule) { r.Up, r.Down = 1, 1 }),
		depth(func(r *ScaleRule) { r.Up, r.Down = mostWorkers, 0 }),
		depth(func(r *ScaleRule) { r.Slots = mostWorkers }),
		latency(func(r *ScaleRule) { r.Latency = time.Second }),
		latency(func(r *ScaleRule) { r.Latency = time.Hour }),
		latency(func(r *ScaleRule) { r.Utilisation = 0.1 }),
		latency(func(r *ScaleRule) { r.Utilisation = 1 }),
		latency(func(r *ScaleRule) { r.Slots, r.Startup = mostWorkers, time.Hour }),
		latency(func(r *ScaleRule) { r.Run, r.Startup = 1, 1 }),
		latency(func(r *ScaleRule) { r.Min, r.Max = 0, 1 }),
		latency(func(r *ScaleRule) { r.Min, r.Max = 1, 1 }),
		latency(func(r *ScaleRule) { r.Min, r.Max = mostWorkers, mostWorkers }),
	} {
		if err := good.validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, c := range []struct {
		bad  ScaleRule
		want string
	}{
		{depth(func(r *ScaleRule) { r.Above, r.Below = 0, 0 }), "Above 0 and Below 0"},
		{depth(func(r *ScaleRule) { r.Below = -1 }), "Below -1"},
		{depth(func(r *ScaleRule) { r.Below = 11 }), "Below 11"},
		{depth(func(r *ScaleRule) { r.Up, r.Down = 0, 0 }), "Up 0"},
		{depth(func(r *ScaleRule) { r.Up = mostWorkers + 1 }), "Up 100001"},
		{depth(func(r *ScaleRule) { r.Down = -1 }), "Down -1"},
		{depth(func(r *ScaleRule) { r.Down = 6 }), "Down 6"},
		{depth(func(r *ScaleRule) { r.Slots = -1 }), "Slots -1"},
		{depth(func(r *ScaleRule) { r.Slots = mostWorkers + 1 }), "Slots 100001"},
		{depth(func(r *ScaleRule) { r.Utilisation = 0.5 }), "without Latency"},
		{depth(func(r *ScaleRule) { r.Run = 1 }), "without Latency"},
		{depth(func(r *ScaleRule) { r.Startup = 1 }), "without Latency"},
		{depth(func(r *ScaleRule) { r.Min = 1 }), "without Latency"},
		{depth(func(r *ScaleRule) { r.Max = 1 }), "without Latency"},
		{latency(func(r *ScaleRule) { r.Latency = time.Second - 1 }), "Latency 999"},
		{latency(func(r *ScaleRule) { r.Latency = time.Hour + 1 }), "Latency 1h"},
		{latency(func(r *ScaleRule) { r.Latency = -1 }), "Latency -1ns"},
		{latency(func(r *ScaleRule) { r.Above = 1 }), "both Latency and Above"},
		{latency(func(r *ScaleRule) { r.Up = 1 }), "both Latency and Above"},
		{latency(func(r *ScaleRule) { r.Below = 1 }), "both Latency and Above"},
		{latency(func(r *ScaleRule) { r.Down = 1 }), "both Latency and Above"},
		{latency(func(r *ScaleRule) { r.Utilisation = 0.09 }), "Utilisation 0.09"},
		{latency(func(r *ScaleRule) { r.Utilisation = 1.01 }), "Utilisation 1.01"},
		{latency(func(r *ScaleRule) { r.Slots = -1 }), "Slots -1"},
		{latency(func(r *ScaleRule) { r.Slots = mostWorkers + 1 }), "Slots 100001"},
		{latency(func(r *ScaleRule) { r.Run = -1 }), "Run -1ns"},
		{latency(func(r *ScaleRule) { r.Startup = -1 }), "Startup -1ns"},
		{latency(func(r *ScaleRule) { r.Startup = time.Hour + 1 }), "Startup 1h"},
		{latency(func(r *ScaleRule) { r.Min = -1 }), "Min -1"},
		{latency(func(r *ScaleRule) { r.Min, r.Max = 0, 0 }), "Max 0"},
		{latency(func(r *ScaleRule) { r.Min = 10 }), "Min 10"},
		{latency(func(r *ScaleRule) { r.Max = mostWorkers + 1 }), "Max 100001"},
	} {
		err := c.bad.validate()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.bad, err, c.want)
		} else if n := strings.Count(err.Error(), "ScaleRule of"); n != 1 {
			t.Errorf("%+v: %d mistakes in %v, want 1", c.bad, n, err)
		}
	}
}
