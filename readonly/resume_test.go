package readonly_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/readonly"
)

// mortal is the store as one process reaches it, until that is killed.
type mortal struct {
	readonly.Store
	dead atomic.Bool
}

var errKilled = errors.New("killed")

func (m *mortal) Load(ctx context.Context) (readonly.State, error) {
	if m.dead.Load() {
		return readonly.State{}, errKilled
	}
	return m.Store.Load(ctx)
}

func (m *mortal) Save(ctx context.Context, s readonly.State) (readonly.State, error) {
	if m.dead.Load() {
		return readonly.State{}, errKilled
	}
	return m.Store.Save(ctx, s)
}

// platform is what the steps change, and what was done to it.
type platform struct {
	mu     sync.Mutex
	log    []string
	paused bool
	ttls   int
}

func (p *platform) did(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, what)
}

// steps are an instance's. kill is called in the middle of the step of that name, and may be nil.
func (p *platform) steps(dies string, kill func()) []readonly.Step {
	maybe := func(what string) error {
		p.did(what)
		if what == dies {
			kill()
			return errKilled
		}
		return nil
	}
	return []readonly.Step{{
		Name: "ttl",
		Do:   func(context.Context) (any, error) { p.ttls = 2; return nil, maybe("extend") },
		Undo: func(context.Context, json.RawMessage) (any, error) { p.ttls = 1; return nil, maybe("restore") },
	}, {
		Name:   "pause",
		Before: func(context.Context) (any, error) { return map[string]bool{"paused": p.paused}, nil },
		Do:     func(context.Context) (any, error) { p.paused = true; return nil, maybe("pause") },
		Undo: func(_ context.Context, before json.RawMessage) (any, error) {
			var was struct{ Paused bool }
			if err := json.Unmarshal(before, &was); err != nil {
				return nil, err
			}
			p.paused = was.Paused
			return nil, maybe("resume")
		},
	}}
}

// two returns the incident of an instance that dies in the step named, and that of another.
func two(t *testing.T, p *platform, dies string) (a, b *readonly.Incident, mode *readonly.Switch, records *[]admin.Record) {
	t.Helper()
	store := readonly.NewMemory()
	m := &mortal{Store: store}
	records = new([]admin.Record)
	first := running(t, m, &readonly.Options{Instance: "a"})
	mode = running(t, store, &readonly.Options{Instance: "b", Audit: func(r admin.Record) { *records = append(*records, r) }})
	a, err1 := readonly.NewIncident(first, p.steps(dies, func() { m.dead.Store(true) })...)
	b, err2 := readonly.NewIncident(mode, p.steps("", nil)...)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	go b.Run(t.Context())
	return a, b, mode, records
}

func TestAnotherInstanceFinishesTheBeginning(t *testing.T) {
	for _, dies := range []string{"extend", "pause"} {
		synctest.Test(t, func(t *testing.T) {
			p := &platform{ttls: 1}
			a, b, mode, _ := two(t, p, dies)
			if _, err := a.Begin(t.Context(), readonly.Change{Reason: "load"}); !errors.Is(err, errKilled) {
				t.Fatalf("Begin = %v", err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if state, _ := mode.State(); state.Relief.Phase != "begun" || p.ttls != 2 || !p.paused {
				t.Fatalf("%s: not finished: %+v, %+v", dies, state, p.log)
			}
			if report, err := b.End(t.Context(), "me"); err != nil || !report.Complete || p.ttls != 1 || p.paused || !writes(t, mode) {
				t.Fatalf("%s: End = %+v, %v; %v", dies, report, err, p.log)
			}
		})
	}
}

func TestAnotherInstanceFinishesTheEnd(t *testing.T) {
	for _, dies := range []string{"resume", "restore"} {
		synctest.Test(t, func(t *testing.T) {
			p := &platform{ttls: 1}
			a, _, mode, _ := two(t, p, dies)
			if report, err := a.Begin(t.Context(), readonly.Change{}); err != nil || !report.Complete {
				t.Fatalf("Begin = %+v, %v", report, err)
			}
			if _, err := a.End(t.Context(), "me"); !errors.Is(err, errKilled) {
				t.Fatalf("End = %v", err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if p.ttls != 1 || p.paused || !writes(t, mode) {
				t.Fatalf("%s: not undone: %v", dies, p.log)
			}
		})
	}
}

// Whoever is asked answers for all steps, also when an instance that has died lets it wait for acknowledgements, and others tick.
func TestWhoIsAskedTellsOfAllSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{ttls: 1}
		store := readonly.NewMemory()
		dead := &mortal{Store: store}
		running(t, dead, &readonly.Options{Instance: "dead"})
		var at []*readonly.Incident
		for _, name := range []string{"a", "b", "c"} {
			incident, err := readonly.NewIncident(running(t, store, &readonly.Options{Instance: name}), p.steps("", nil)...)
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, incident)
			go incident.Run(t.Context())
		}
		dead.dead.Store(true)
		for n, incident := range at { // each ticks at another moment of the second
			begun, err := incident.Begin(t.Context(), readonly.Change{Reason: "load"})
			if err != nil || !begun.Complete || len(begun.Steps) != 2 {
				t.Errorf("%d: Begin = %+v, %v", n, begun, err)
			}
			ended, err := at[(n+1)%3].End(t.Context(), "me")
			if err != nil || !ended.Complete || len(ended.Steps) != 2 {
				t.Errorf("%d: End = %+v, %v", n, ended, err)
			}
			time.Sleep(1300 * time.Millisecond)
		}
	})
}

func TestIncidentEndsAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{ttls: 1}
		a, _, mode, records := two(t, p, "")
		report, err := a.Begin(t.Context(), readonly.Change{Until: time.Now().Add(10 * time.Minute)})
		if err != nil || !report.Complete || writes(t, mode) {
			t.Fatalf("Begin = %+v, %v", report, err)
		}
		time.Sleep(10*time.Minute + 5*time.Second)
		synctest.Wait()
		if state, _ := mode.State(); p.ttls != 1 || p.paused || !writes(t, mode) || state.Incident {
			t.Fatalf("not undone: %+v, %v", state, p.log)
		}
		if len(*records) != 1 || (*records)[0].Operation != "incident.expire" {
			t.Errorf("audited: %+v", *records)
		}
	})
}

// What was paused before stays paused, whoever undoes the incident, and also when its beginning was done twice.
func TestWhatWasFoundIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{ttls: 1, paused: true}
		a, b, _, _ := two(t, p, "pause")
		if _, err := a.Begin(t.Context(), readonly.Change{}); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if report, err := b.Begin(t.Context(), readonly.Change{Reason: "again"}); err != nil || !report.Complete {
			t.Fatalf("Begin = %+v, %v", report, err)
		}
		if report, err := b.End(t.Context(), "me"); err != nil || !report.Complete {
			t.Fatalf("End = %+v, %v", report, err)
		}
		if !p.paused || p.ttls != 1 {
			t.Fatalf("a queue that was paused before was resumed: %v", p.log)
		}
	})
}

// A step is never done and undone at once: the end waits for the beginning's claim.
func TestEndWaitsForTheStepThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		a, b := running(t, store, &readonly.Options{Instance: "a"}), running(t, store, &readonly.Options{Instance: "b"})
		var mu sync.Mutex
		var log []string
		note := func(s string) { mu.Lock(); log = append(log, s); mu.Unlock() }
		step := readonly.Step{
			Name: "slow",
			Do: func(context.Context) (any, error) {
				note("do")
				time.Sleep(15 * time.Second)
				note("done")
				return nil, nil
			},
			Undo: func(context.Context, json.RawMessage) (any, error) { note("undo"); return nil, nil },
		}
		ia, err1 := readonly.NewIncident(a, step)
		ib, err2 := readonly.NewIncident(b, step)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		go ib.Run(t.Context())
		var begin sync.WaitGroup
		begin.Go(func() { ia.Begin(t.Context(), readonly.Change{}) })
		time.Sleep(time.Second)
		report, err := ib.End(t.Context(), "me")
		if err != nil || report.Complete {
			t.Fatalf("End = %+v, %v; the step runs", report, err)
		}
		begin.Wait()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if state, _ := b.State(); state.Incident || !slices.Equal(log, []string{"do", "done", "undo"}) {
			t.Fatalf("%v, %+v", log, state)
		}
	})
}

// Two are asked to end the incident at once, or one while its time is over and another has begun: each says that it is undone.
func TestWhoeverIsAskedToEndSaysThatItHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := readonly.NewMemory()
		step := readonly.Step{
			Name: "slow",
			Do:   func(context.Context) (any, error) { return nil, nil },
			Undo: func(context.Context, json.RawMessage) (any, error) { time.Sleep(2 * time.Second); return nil, nil },
		}
		var at []*readonly.Incident
		var modes []*readonly.Switch
		for _, name := range []string{"a", "b", "c"} {
			mode := running(t, store, &readonly.Options{Instance: name})
			incident, err := readonly.NewIncident(mode, step)
			if err != nil {
				t.Fatal(err)
			}
			at, modes = append(at, incident), append(modes, mode)
		}
		for _, until := range []time.Duration{0, 10 * time.Second} {
			change := readonly.Change{}
			if until > 0 {
				change.Until = time.Now().Add(until)
			}
			if report, err := at[0].Begin(t.Context(), change); err != nil || !report.Complete {
				t.Fatalf("Begin = %+v, %v", report, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			if until > 0 {
				go at[2].Run(ctx)
				time.Sleep(until + time.Second) // the third has begun to undo it
			}
			var asked sync.WaitGroup
			for n, incident := range at[:2] {
				asked.Go(func() {
					if report, err := incident.End(t.Context(), "me"); err != nil || !report.Complete || !writes(t, modes[n]) {
						t.Errorf("until %v, %d: End = %+v, %v", until, n, report, err)
					}
				})
			}
			asked.Wait()
			cancel()
		}
	})
}
