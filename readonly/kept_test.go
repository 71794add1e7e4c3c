package readonly_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/scaleaware/scaleaware/readonly"
)

// writing is a store that keeps what every real one keeps, which is JSON, and has enough of it after a while.
type writing struct {
	readonly.Store
	saves atomic.Int64
}

func (w *writing) Save(ctx context.Context, s readonly.State) (readonly.State, error) {
	if w.saves.Add(1) > 50 {
		return readonly.State{}, errors.New("fifty saves")
	}
	blob, err := json.Marshal(s)
	if err != nil {
		return readonly.State{}, err
	}
	var kept readonly.State
	if err := json.Unmarshal(blob, &kept); err != nil {
		return readonly.State{}, err
	}
	return w.Store.Save(ctx, kept)
}

// What JSON keeps in another form than it was given is changed once, and to ask for it again changes nothing.
func TestWhatJSONAltersIsChangedOnce(t *testing.T) {
	for name, change := range map[string]readonly.Change{
		"empty tenants": {Tenants: []string{}},
		"reason":        {Reason: "caf\xe9"},
		"actor":         {Actor: "\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &writing{Store: readonly.NewMemory()}
				s := running(t, store, &readonly.Options{Tenant: func(context.Context) (string, bool) { return "", false }})
				for range 2 {
					report, err := s.Enable(t.Context(), change)
					if saves := store.saves.Load(); err != nil || report.Epoch != 1 || saves != 1 {
						t.Fatalf("epoch %d after %d saves, %v", report.Epoch, saves, err)
					}
				}
			})
		})
	}
}

// A name that JSON would alter is nobody's any more, so nobody's writes would be refused.
func TestTenantsThatCannotBeStoredAreNamed(t *testing.T) {
	s, err := readonly.New(nil, &readonly.Options{Tenant: func(context.Context) (string, bool) { return "", false }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enable(t.Context(), readonly.Change{Tenants: []string{"caf\xe9"}}); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("Enable = %v", err)
	}
}
