package cache

import (
	"context"
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// What a delete by a caller who wrote asks for stays when what was loaded after it is taken away, too: by callers who wrote
// before, and come late, and by such who wrote nothing.
func TestDeleteOutlivesWhatWasLoadedAfterIt(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, invalidate := range invalidations {
			for who, wrote := range map[string]func(context.Context) context.Context{
				"late":     func(ctx context.Context) context.Context { return wrote(ctx, at(7)) },
				"no token": func(ctx context.Context) context.Context { return ctx },
			} {
				t.Run(name+", "+who, func(t *testing.T) {
					lateDelete(t, rdb, wrote, invalidate)
				})
			}
		}
	})
}

func lateDelete(t *testing.T, rdb redis.UniversalClient, late func(context.Context) context.Context, invalidate func(ctx context.Context, v *View[lead]) error) {
	ctx := testContext(t)
	leads := tagged(t, ctx, running(t, newStore(t, rdb, nil)))
	if err := leads.Delete(wrote(ctx, at(8)), "1"); err != nil {
		t.Fatal(err)
	}
	l, err := leads.Load(ctx, "1", loads(lead{Score: 8}, at(8)))
	wantScore(t, l, err, 8)
	if err := invalidate(late(ctx), leads); err != nil {
		t.Fatal(err)
	}
	wantShutOut(t, ctx, leads, 7)
}

// wantShutOut checks that what was loaded as of older is not stored, and as of 9 is.
func wantShutOut(t *testing.T, ctx context.Context, v *View[lead], older scaleaware.LSN) {
	t.Helper()
	l, err := v.Load(ctx, "1", loads(lead{Score: int64(older)}, at(older)))
	wantScore(t, l, err, int64(older))
	if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("got %+v, %v, which is shut out", l, err)
	}
	l, err = v.Load(ctx, "1", loads(lead{Score: 9}, at(9)))
	wantScore(t, l, err, 9)
	l, err = v.Get(ctx, "1")
	wantScore(t, l, err, 9)
}
