package metrics

import (
	"strings"
	"testing"
	"time"
)

func TestHeldBack(t *testing.T) {
	for name, test := range map[string]struct {
		before, now []periods
		want        float64 // -1 is nothing
	}{
		"no groups":           {nil, nil, -1},
		"no limit":            {[]periods{{0, 0}}, []periods{{0, 0}}, -1},
		"first look":          {nil, []periods{{100, 20}}, -1},
		"held back":           {[]periods{{100, 20}}, []periods{{150, 30}}, .2},
		"the group around it": {[]periods{{0, 0}, {100, 20}}, []periods{{0, 0}, {150, 45}}, .5},
		"never":               {[]periods{{100, 20}}, []periods{{150, 20}}, 0},
		"counted anew":        {[]periods{{100, 20}}, []periods{{150, 0}}, 0},
		"moved":               {[]periods{{100, 20}}, []periods{{150, 30}, {1, 1}}, -1},
	} {
		got := heldBack(test.before, test.now)
		if (got == nil) != (test.want < 0) || got != nil && *got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestQuota(t *testing.T) {
	for text, want := range map[string]float64{"50000 100000\n": .5, "max 100000\n": unknown, "400000 100000": 4, "": unknown, "0 100000": unknown, "5": unknown, "1 0": unknown} {
		if got := quota(text); got != want {
			t.Errorf("%q allows %v cores, want %v", text, got, want)
		}
	}
}

// The CPU's saturation is seen in its group's periods, also where utilization is low because the limit is on others, too.
func TestThrottledCPUIsUsedUp(t *testing.T) {
	l := newLedger(5*time.Second, 5*time.Minute)
	for i, held := range []float64{.3, .5} {
		l.add(epoch.Add(time.Duration(i)*time.Minute), map[string]*vitals{
			"a": {Held: &held, Usage: map[string]usage{resourceKey(resourceCPU, ""): {1, 10, 0, unknown}, resourceKey(resourceMemory, ""): {95, 100, unknown, unknown}}},
			"b": {Held: new(.1)}, "c": {},
		})
	}
	b := l.bottlenecks(5*time.Minute, About{})
	cpu := b.Resources[0]
	if cpu.ID != "cpu" || cpu.Throttled == nil || *cpu.Throttled < .399 || *cpu.Throttled > .401 {
		t.Fatalf("%+v", cpu)
	}
	if want := "CPU is used up now: its control group was held back in 40 % of its periods (cpu.stat)"; b.Verdict != want {
		t.Errorf("verdict %q, want %q", b.Verdict, want)
	}
	little := newLedger(5*time.Second, 5*time.Minute)
	little.add(epoch, map[string]*vitals{"a": {Held: new(.1), Usage: map[string]usage{resourceKey(resourceCPU, ""): {1, 10, 0, unknown}}}})
	if b := little.bottlenecks(5*time.Minute, About{}); strings.Contains(b.Verdict, "used up") || *b.Resources[0].Throttled > .11 {
		t.Errorf("little of it: %q", b.Verdict)
	}
	none := newLedger(5*time.Second, 5*time.Minute)
	none.add(epoch, map[string]*vitals{"a": {Usage: map[string]usage{resourceKey(resourceCPU, ""): {1, 10, 0, unknown}}}})
	if r := none.bottlenecks(5*time.Minute, About{}).resource("cpu"); r.Throttled != nil {
		t.Errorf("no limit, and %v", *r.Throttled)
	}
	if (&vitals{Held: new(1.5)}).check() == nil {
		t.Error("a group was held back more than always")
	}
}
