package readonly_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/readonly"
)

// script is a step that writes down what was done.
func script(log *[]string, name string, fail *bool) readonly.Step {
	note := func(what string) func(context.Context) (any, error) {
		return func(context.Context) (any, error) {
			*log = append(*log, what+" "+name)
			if *fail {
				return nil, errors.New("it broke")
			}
			return nil, nil
		}
	}
	undo := note("undo")
	return readonly.Step{Name: name, Do: note("do"), Undo: func(ctx context.Context, _ json.RawMessage) (any, error) { return undo(ctx) }}
}

func TestIncidentIsUndoneAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		fine, broken := false, false
		mode := running(t, nil, nil)
		incident, err := readonly.NewIncident(mode, script(&log, "ttl", &fine), script(&log, "pause", &broken))
		if err != nil {
			t.Fatal(err)
		}
		begun, err := incident.Begin(t.Context(), readonly.Change{Reason: "load"})
		if err != nil || !begun.Complete || !begun.ReadOnly.Incident || mode.AllowWrite(t.Context()) == nil {
			t.Fatalf("Begin = %+v, %v", begun, err)
		}
		broken = true
		ended, err := incident.End(t.Context(), "me")
		if err != nil || ended.Complete || mode.AllowWrite(t.Context()) == nil {
			t.Fatalf("End with a broken step = %+v, %v; want incomplete and still read-only", ended, err)
		}
		broken = false
		ended, err = incident.End(t.Context(), "me")
		if err != nil || !ended.Complete || mode.AllowWrite(t.Context()) != nil {
			t.Fatalf("End = %+v, %v", ended, err)
		}
		if want := []string{"do ttl", "do pause", "undo pause", "undo ttl", "undo pause", "undo ttl"}; !slices.Equal(log, want) {
			t.Fatalf("steps ran as %v, want %v", log, want)
		}
	})
}

func TestIncidentRefusesHalfSteps(t *testing.T) {
	if _, err := readonly.NewIncident(nil, readonly.Step{Name: "x"}); err == nil || !strings.Contains(err.Error(), "Switch") || !strings.Contains(err.Error(), "step 0") {
		t.Fatalf("error = %v", err)
	}
}

func TestOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		fine := false
		mode := running(t, nil, nil)
		incident, err := readonly.NewIncident(mode, script(&log, "pause", &fine))
		if err != nil {
			t.Fatal(err)
		}
		do := func(id string, body any, dryRun bool) (any, error) {
			for _, op := range slices.Concat(mode.Operations(), incident.Operations()) {
				if op.ID == id {
					return op.Do(t.Context(), &admin.Call{Actor: "me", Body: body, DryRun: dryRun, Request: httptest.NewRequest(op.Method, op.Path, nil)})
				}
			}
			t.Fatalf("no operation %s", id)
			return nil, nil
		}
		status := func(err error) int {
			if p, ok := errors.AsType[*admin.Problem](err); ok {
				return p.Status
			}
			return 0
		}
		writes := func() bool { return mode.AllowWrite(t.Context()) == nil }

		if _, err := do("readonly.enable", new(readonly.Request), true); err != nil || !writes() {
			t.Fatalf("a dry run changed the mode: %v", err)
		}
		if _, err := do("readonly.enable", &readonly.Request{Tier: "staff"}, false); status(err) != http.StatusBadRequest || !writes() {
			t.Fatalf("tier staff: %v", err)
		}
		if _, err := do("readonly.enable", &readonly.Request{Until: time.Now().Add(-time.Second)}, false); status(err) != http.StatusBadRequest || !writes() {
			t.Fatalf("until in the past: %v", err)
		}
		if _, err := do("readonly.enable", new(readonly.Request), false); err != nil || writes() {
			t.Fatalf("enable: %v", err)
		}
		if _, err := do("readonly.disable", nil, false); err != nil || !writes() {
			t.Fatalf("disable: %v", err)
		}
		if _, err := do("incident.begin", new(readonly.Request), true); err != nil || !writes() || len(log) > 0 {
			t.Fatalf("a dry run began an incident: %v", err)
		}
		if _, err := do("incident.begin", new(readonly.Request), false); err != nil || writes() {
			t.Fatalf("begin: %v", err)
		}
		if _, err := do("readonly.enable", &readonly.Request{Reason: "again"}, false); err != nil || writes() {
			t.Fatalf("enable during an incident: %v", err)
		}
		if _, err := do("readonly.disable", nil, false); status(err) != http.StatusConflict || writes() {
			t.Fatalf("the mode of an incident was disabled alone: %v", err)
		}
		if _, err := do("incident.end", nil, false); err != nil || !writes() {
			t.Fatalf("end: %v", err)
		}
	})
}

func ExampleSwitch() {
	mode, _ := readonly.New(nil, &readonly.Options{AssumeWritable: true})
	fmt.Println(mode.AllowWrite(context.Background()))

	mode.Enable(context.Background(), readonly.Change{Reason: "moving to the new region"})
	err := mode.AllowWrite(context.Background())
	fmt.Println(errors.Is(err, readonly.ErrReadOnly))
	// Output:
	// <nil>
	// true
}

func BenchmarkAllowWrite(b *testing.B) {
	mode, err := readonly.New(nil, &readonly.Options{AssumeWritable: true})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if mode.AllowWrite(b.Context()) != nil {
			b.Fatal("refused")
		}
	}
}
