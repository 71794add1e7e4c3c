package readonly_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

// queues are steps that pause queues, and need what they found to resume them.
type queues struct {
	paused map[string]bool
	blind  map[string]bool // of which nobody sees what they are
	log    []string
}

func (q *queues) step(name string) readonly.Step {
	return readonly.Step{
		Name: name,
		Before: func(context.Context) (any, error) {
			if q.blind[name] {
				return nil, errors.New("it does not answer")
			}
			return map[string]bool{"paused": q.paused[name]}, nil
		},
		Do: func(context.Context) (any, error) {
			q.log = append(q.log, "pause "+name)
			q.paused[name] = true
			return nil, nil
		},
		Undo: func(_ context.Context, before json.RawMessage) (any, error) {
			q.log = append(q.log, "resume "+name)
			var was struct{ Paused bool }
			if err := json.Unmarshal(before, &was); err != nil {
				return nil, err
			}
			q.paused[name] = was.Paused
			return nil, nil
		},
	}
}

// A step that cannot see what it would change is left out: the others are done, it is told, and only they are undone.
func TestABlindStepIsLeftOut(t *testing.T) {
	for name, again := range map[string]bool{"for good": false, "until it sees": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := &queues{paused: map[string]bool{"b": true}, blind: map[string]bool{"a": true, "b": true}}
				mode := running(t, nil, nil)
				incident, err := readonly.NewIncident(mode, q.step("a"), q.step("b"), q.step("c"))
				if err != nil {
					t.Fatal(err)
				}
				report, err := incident.Begin(t.Context(), readonly.Change{})
				if err != nil || report.Complete || len(report.Steps) != 3 || report.Steps[0].Error == "" || report.Steps[1].Error == "" || report.Steps[2].Error != "" {
					t.Fatalf("Begin = %+v, %v", report, err)
				}
				want := []string{"pause c", "resume c"}
				if again {
					q.blind["a"] = false
					if report, err := incident.Begin(t.Context(), readonly.Change{}); err != nil || report.Complete || report.Steps[0].Error != "" || report.Steps[1].Error == "" {
						t.Fatalf("Begin = %+v, %v", report, err)
					}
					want = []string{"pause c", "pause a", "pause c", "resume c", "resume a"}
				}
				ended, err := incident.End(t.Context(), "me")
				if err != nil || !ended.Complete || len(ended.Steps) != len(want)/2 || !writes(t, mode) {
					t.Errorf("End = %+v, %v", ended, err)
				}
				if !slices.Equal(q.log, want) || q.paused["a"] || !q.paused["b"] || q.paused["c"] {
					t.Errorf("%v, paused %v; want %v", q.log, q.paused, want)
				}
			})
		})
	}
}

// What has not been begun is not undone, also when another version says that it is due.
func TestWhatWasNotBegunIsNotUndone(t *testing.T) {
	for name, relief := range map[string]readonly.Relief{
		"beginning":                  {Phase: "beginning"},
		"beginning, the first begun": {Phase: "beginning", Next: 1, Before: []json.RawMessage{json.RawMessage(`{"paused":false}`)}},
		"ending":                     {Phase: "ending", Next: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := readonly.NewMemory()
				if _, err := store.Save(t.Context(), readonly.State{Epoch: 1, ID: "x", Enabled: true, Incident: true, Relief: relief}); err != nil {
					t.Fatal(err)
				}
				q := &queues{paused: map[string]bool{"a": true, "b": true}}
				mode := running(t, store, nil)
				incident, err := readonly.NewIncident(mode, q.step("a"), q.step("b"))
				if err != nil {
					t.Fatal(err)
				}
				ended, err := incident.End(t.Context(), "me")
				if err != nil || !ended.Complete || !writes(t, mode) {
					t.Errorf("End = %+v, %v", ended, err)
				}
				go incident.Run(t.Context())
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if len(q.log) != len(relief.Before) || !q.paused["b"] {
					t.Errorf("undone: %v, paused %v", q.log, q.paused)
				}
			})
		})
	}
}
