package simulate

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/queue"
)

// scaler lets two or three processes scale one queue, whose depth and arrivals the run makes up. Of the calls of the hook no
// two are made at a time by different processes, generations only grow, and the number never leaves its bounds. By depth it
// changes only past the two bounds, and is right within 40 s after all is well. By latency it goes at most to the double or the
// half, and not down within 5 minutes after it went up.
func scaler(w *world) {
	w.slowest, w.late = w.between(0, 100*time.Millisecond), w.between(0, 100*time.Millisecond)
	names := []string{"process 0", "process 1", "process 2"}[:2+w.IntN(2)]
	lasts := 4 * time.Minute
	rule := queue.ScaleRule{Queue: "q", Below: 1 + w.IntN(20), Down: w.IntN(3)}
	rule.Above, rule.Up = rule.Below+w.IntN(100), rule.Down+1+w.IntN(5)
	if w.IntN(2) == 0 {
		lasts = 16 * time.Minute
		rule = queue.ScaleRule{Queue: "q", Latency: w.between(time.Second, 30*time.Second), Slots: 1 + w.IntN(10), Run: w.between(10*time.Millisecond, time.Second), Min: w.IntN(3)}
		rule.Max = rule.Min + 1 + w.IntN(40)
	}
	w.note("planned: %+v", rule)
	if w.IntN(4) > 0 {
		w.plague(lasts, 40*time.Second, names...)
	}
	f := &fleet{world: w, rule: rule, depths: []depth{{}}, workers: -1}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for _, name := range names {
		j, err := queue.New(w.client(name), []queue.Queue{{Name: "q"}}, &queue.Options{SampleInterval: time.Hour})
		if err != nil {
			w.t.Fatal(err)
		}
		err = j.Autoscale(rule, func(ctx context.Context, d queue.Decision) error { return f.scale(ctx, name, d) }, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(w.between(0, 5*time.Second))
		running.Go(func() { _ = j.Run(ctx) })
	}
	for w.now() < lasts {
		if rule.Latency == 0 {
			f.enqueue([]int{0, w.IntN(rule.Below + 1), rule.Below + w.IntN(rule.Above-rule.Below+1), rule.Above + 1 + w.IntN(50)}[w.IntN(4)])
		} else {
			f.enqueue(w.IntN(50))
			f.process(w.IntN(1 + int(200*(1+float64(w.now()%(7*time.Minute))/float64(time.Minute)))))
		}
		time.Sleep(w.between(time.Second, 25*time.Second))
	}
	if rule.Latency == 0 {
		want := []int{rule.Down, rule.Up}[w.IntN(2)]
		f.enqueue(map[int]int{rule.Down: 0, rule.Up: rule.Above + 1}[want])
		time.Sleep(40 * time.Second)
		f.lock.Lock()
		if f.workers != want {
			w.violated("%d workers are wanted 40s after all is well, and not %d", f.workers, want)
		}
		f.lock.Unlock()
	}
	w.end()
}

// fleet is what the hooks scale.
type fleet struct {
	*world
	rule queue.ScaleRule

	lock       sync.Mutex
	depths     []depth // as they followed each other
	arrived    int
	calling    map[string]int // calls of hooks under way, by process
	generation int64
	workers    int // -1 until the first call
	raised     time.Duration
}

type depth struct {
	from time.Duration
	jobs int
}

// enqueue makes so many jobs wait.
func (f *fleet) enqueue(jobs int) {
	const pending = "asynq:{q}:pending"
	have, _ := f.redis.List(pending)
	for i := len(have); i < jobs; i++ {
		_, _ = f.redis.Lpush(pending, strconv.Itoa(i))
	}
	for i := len(have); i > jobs; i-- {
		_, _ = f.redis.RPop(pending)
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	f.depths = append(f.depths, depth{f.now(), jobs})
	f.note("%d jobs wait", jobs)
}

// process makes so many jobs have come and gone.
func (f *fleet) process(jobs int) {
	f.arrived += jobs
	_ = f.redis.Set("asynq:{q}:processed", strconv.Itoa(f.arrived))
	f.note("%d jobs more have run", jobs)
}

// scale is the hook.
func (f *fleet) scale(ctx context.Context, process string, d queue.Decision) error {
	f.lock.Lock()
	f.note("%s calls for %d workers: %s, %d due", process, d.Workers, d.Reason, d.Inputs.Due)
	f.judge(process, d)
	if f.calling == nil {
		f.calling = map[string]int{}
	}
	f.calling[process]++
	f.lock.Unlock()

	timer := time.NewTimer(time.Duration(f.draw(process, f.now()) % uint64(2*time.Second)))
	defer timer.Stop()
	var err error
	select {
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if f.draw(process, f.now(), "fails")%8 == 0 {
		err = errors.New("the hook fails")
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	f.calling[process]--
	f.note("%s's call ends: %s", process, outcome(err))
	return err
}

// judge holds a call against what is true. f.lock is held.
func (f *fleet) judge(process string, d queue.Decision) {
	for other, n := range f.calling {
		if n > 0 && other != process {
			f.violated("%s calls while %s does", process, other)
		}
	}
	if d.Generation <= f.generation {
		f.violated("%s calls with generation %d after %d", process, d.Generation, f.generation)
	}
	f.generation = d.Generation
	if !f.was(d.Inputs.Due) {
		f.violated("%s saw %d jobs due, which never were in the last 10s", process, d.Inputs.Due)
	}
	before, r := f.workers, f.rule
	f.workers = d.Workers
	if len(f.faults) > 0 {
		before = d.Previous // was decided, but its call may have been lost
	}
	switch {
	case r.Latency > 0:
		f.judgeLatency(before, d.Workers)
	case d.Inputs.Due > r.Above && d.Workers != r.Up, d.Inputs.Due < r.Below && d.Workers != r.Down:
		f.violated("%d workers for %d jobs", d.Workers, d.Inputs.Due)
	case d.Inputs.Due >= r.Below && d.Inputs.Due <= r.Above && d.Workers != before:
		f.violated("from %d to %d workers between the bounds", before, d.Workers)
	}
}

func (f *fleet) judgeLatency(before, now int) {
	r := f.rule
	if now < r.Min || now > r.Max {
		f.violated("%d workers, want %d to %d", now, r.Min, r.Max)
	}
	if before < 0 || now > before {
		if now > max(2*before, r.Min, 1) {
			f.violated("from %d to %d workers in one step", before, now)
		}
		f.raised = f.now()
		return
	}
	if now < before && f.now()-f.raised < 290*time.Second {
		f.violated("from %d to %d workers %v after the last rise", before, now, f.now()-f.raised)
	}
	if now < (before+1)/2 {
		f.violated("from %d to %d workers in one step", before, now)
	}
}

// was says whether so many jobs waited at some time in the last 10 seconds.
func (f *fleet) was(jobs int) bool {
	for i, d := range f.depths {
		last := i == len(f.depths)-1
		if d.jobs == jobs && (last || f.depths[i+1].from > f.now()-10*time.Second) {
			return true
		}
	}
	return false
}
