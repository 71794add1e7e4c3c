package readonly_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

// mute is a store that tells nobody of changes while it is mute.
type mute struct {
	readonly.Store
	mute atomic.Bool
}

func (m *mute) Watch(ctx context.Context, changed func()) error {
	if m.mute.Load() {
		return errors.New("nobody there")
	}
	changed()
	<-ctx.Done()
	return ctx.Err()
}

// A store that cannot be watched for long fills no log, and is told of anew after it could.
func TestFailingWatchIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		store := &mute{Store: readonly.NewMemory()}
		store.mute.Store(true)
		running(t, store, &readonly.Options{Poll: 250 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := strings.Count(log.String(), "nobody there"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, &log)
		}
	})
}

// That the mode has ended at its time is told also where a write is the first to see it, and without the store.
func TestTheEndIsToldUnderTraffic(t *testing.T) {
	t.Run("with the store", func(t *testing.T) { toldOfTheEnd(t, false) })
	t.Run("without", func(t *testing.T) { toldOfTheEnd(t, true) })
}

func toldOfTheEnd(t *testing.T, dead bool) {
	synctest.Test(t, func(t *testing.T) {
		store := &mortal{Store: readonly.NewMemory()}
		s := running(t, store, nil)
		if _, err := s.Enable(t.Context(), readonly.Change{Until: time.Now().Add(time.Minute + time.Millisecond)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		store.dead.Store(dead)
		changed := s.Changed()
		time.Sleep(time.Minute + time.Millisecond) // between two polls
		if err := s.AllowWrite(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		select {
		case <-changed:
		default:
			t.Error("a minute after the end nobody was told")
		}
	})
}

// slow is a store of which one answer is late.
type slow struct {
	readonly.Store
	late  atomic.Pointer[chan struct{}]
	saves atomic.Int64
}

func (s *slow) Load(ctx context.Context) (readonly.State, error) {
	state, err := s.Store.Load(ctx)
	if late := s.late.Swap(nil); late != nil {
		<-*late
	}
	return state, err
}

func (s *slow) Save(ctx context.Context, state readonly.State) (readonly.State, error) {
	s.saves.Add(1)
	return s.Store.Save(ctx, state)
}

// A poll that is answered with what held before a change of this instance has not seen a store that lost it.
func TestALateAnswerIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		store := &slow{Store: readonly.NewMemory()}
		s := running(t, store, &readonly.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		late := make(chan struct{})
		store.late.Store(&late)
		time.Sleep(time.Second)
		if _, err := s.Enable(t.Context(), readonly.Change{}); err != nil {
			t.Fatal(err)
		}
		close(late)
		time.Sleep(time.Second)
		synctest.Wait()
		if saves := store.saves.Load(); saves != 1 || strings.Contains(log.String(), "lost") {
			t.Errorf("%d saves for one change:\n%s", saves, &log)
		}
	})
}
