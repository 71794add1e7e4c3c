package metrics

import (
	"math"
	"runtime"
	rtm "runtime/metrics"
	"time"
)

// probe reads what the runtime and the operating system know of this process.
type probe struct {
	samples []rtm.Sample
	by      map[string]*rtm.Sample
	last    time.Time
	cpu, gc float64 // seconds at the last reading
	periods []periods
	limited float64 // the cycle in which the collector last hit its limit
}

const (
	rtGC         = "/cpu/classes/gc/total:cpu-seconds"
	rtIdle       = "/cpu/classes/idle:cpu-seconds"
	rtTotal      = "/cpu/classes/total:cpu-seconds"
	rtLimiter    = "/gc/limiter/last-enabled:gc-cycle"
	rtMemLimit   = "/gc/gomemlimit:bytes"
	rtMemory     = "/memory/classes/total:bytes"
	rtReleased   = "/memory/classes/heap/released:bytes"
	rtGoroutines = "/sched/goroutines:goroutines"
	rtRunnable   = "/sched/goroutines/runnable:goroutines"

	// gcMost is the part of all cores beyond which the runtime keeps the collector from going, rather letting the heap
	// grow past GOMEMLIMIT.
	gcMost = .5
)

func newProbe() *probe {
	p := &probe{by: map[string]*rtm.Sample{}}
	for _, name := range []string{rtGC, rtIdle, rtTotal, rtLimiter, rtMemLimit, rtMemory, rtReleased, rtGoroutines, rtRunnable} {
		p.samples = append(p.samples, rtm.Sample{Name: name})
	}
	for i := range p.samples {
		p.by[p.samples[i].Name] = &p.samples[i]
	}
	return p
}

// value is unknown where this version of the runtime has no such metric.
func (p *probe) value(name string) float64 {
	switch s := p.by[name]; s.Value.Kind() {
	case rtm.KindUint64:
		return float64(s.Value.Uint64())
	case rtm.KindFloat64:
		return s.Value.Float64()
	}
	return unknown
}

// read puts each resource. What is counted in seconds appears at the second reading.
func (p *probe) read(now time.Time, limits Limits, put func(kind string, u usage)) {
	rtm.Read(p.samples)
	cores := float64(runtime.GOMAXPROCS(0))
	if quota := ownCores(); quota > 0 {
		cores = min(cores, quota) // a control group's limit need not be whole
	}
	cpu, ok := cpuSeconds()
	if !ok { // as of the last garbage collection
		cpu = p.value(rtTotal) - p.value(rtIdle)
	}
	gc, limited := p.value(rtGC), p.value(rtLimiter)
	if seconds := now.Sub(p.last).Seconds(); !p.last.IsZero() && seconds > 0 {
		put(resourceCPU, usage{max(0, cpu-p.cpu) / seconds, cores, p.value(rtRunnable), unknown})
		hit := 0.0
		if limited > p.limited {
			hit = 1 / seconds
		}
		put(resourceGC, usage{max(0, gc-p.gc) / seconds, gcMost * cores, unknown, hit})
	}
	p.last, p.cpu, p.gc, p.limited = now, cpu, gc, limited
	most := float64(unknown)
	if limits.Goroutines > 0 {
		most = float64(limits.Goroutines)
	}
	put(resourceGoroutines, usage{p.value(rtGoroutines), most, unknown, unknown})
	if n, most := openFiles(); n >= 0 {
		put(resourceFiles, usage{n, most, unknown, unknown})
	}
	put(resourceMemory, p.memory(limits))
}

// memory is the process's own against a limit of its own, else all that is used on the machine against what that has.
func (p *probe) memory(limits Limits) usage {
	own := p.value(rtMemory) - p.value(rtReleased)
	limit := p.value(rtMemLimit)
	switch {
	case limits.Memory > 0:
		return usage{max(own, residentBytes()), float64(limits.Memory), unknown, unknown}
	case limit > 0 && limit < math.MaxInt64:
		return usage{own, limit, unknown, unknown}
	}
	if used, most := groupMemory(); most > 0 {
		return usage{used, most, unknown, unknown}
	}
	if used, most := machineMemory(); most > 0 {
		return usage{used, most, unknown, unknown}
	}
	return usage{own, unknown, unknown, unknown}
}
