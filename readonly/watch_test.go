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
