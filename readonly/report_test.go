package readonly_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

// hanging is a database that takes questions and never answers.
type hanging struct{}

func (hanging) Mark(ctx context.Context) (string, uint64, error) {
	<-ctx.Done()
	return "", 0, ctx.Err()
}

func (hanging) Look(ctx context.Context) (readonly.Sight, error) {
	<-ctx.Done()
	return readonly.Sight{}, ctx.Err()
}

// One who asks without a deadline keeps nobody from changing the mode or from being told it, and is told himself.
func TestHungDatabaseKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wait = 2 * time.Second
		s := running(t, nil, &readonly.Options{Witness: hanging{}, AckWait: wait})
		for what, do := range map[string]func(context.Context) (readonly.Report, error){
			"Enable": func(ctx context.Context) (readonly.Report, error) { return s.Enable(ctx, readonly.Change{}) },
			"Report": s.Report,
		} {
			if _, err := s.Enable(t.Context(), readonly.Change{}); err != nil {
				t.Fatal(err)
			}
			asked := make(chan struct{})
			go func() { defer close(asked); _, _ = s.Report(context.Background()) }()
			synctest.Wait()
			began := time.Now()
			report, err := do(context.Background())
			if took := time.Since(began); err != nil || took > wait || !report.Enabled || report.Held || report.Database == nil || report.Database.Error == "" {
				t.Errorf("%s = %+v, %v after %v", what, report, err, took)
			}
			began = time.Now()
			if report, err := s.Disable(context.Background(), "me"); err != nil || report.Enabled || time.Since(began) > wait {
				t.Errorf("Disable = %+v, %v after %v", report, err, time.Since(began))
			}
			<-asked
		}
	})
}
