package cache

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// Where reads are monotonic, a loader's read raises its watermark. Who is then given the entry has seen as much as who loaded it.
func TestHitTellsWhatWasSeen(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		load := func(ctx context.Context, id string) (lead, error) {
			w := scaleaware.WatermarkFrom(ctx)
			w.Saw(at(5))
			w.Raise(at(9))
			return lead{ID: id, Score: 1}, nil
		}
		for name, look := range map[string]func(context.Context) error{
			"a hit":   func(ctx context.Context) error { _, err := leads.Load(ctx, "1", load); return err },
			"Get":     func(ctx context.Context) error { _, err := leads.Get(ctx, "1"); return err },
			"GetMany": func(ctx context.Context) error { _, err := leads.GetMany(ctx, []string{"1"}); return err },
		} {
			if _, err := leads.Load(ctx, "1", load); err != nil {
				t.Fatal(err)
			}
			caller, w := scaleaware.WithWatermark(ctx)
			if err := look(caller); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if written, err := w.Written(ctx); err != nil || written.For(at(9).System) != at(9) {
				t.Errorf("%s: later reads must reach %v, %v, want %v", name, written, err, at(9))
			}
		}
	})
}

// What was seen at a position that nobody knows cannot be told to later callers.
func TestSeenAtAnUnknownPositionIsNotStored(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		l, err := leads.Load(ctx, "1", func(ctx context.Context, id string) (lead, error) {
			scaleaware.WatermarkFrom(ctx).Raise(unknownAt(1))
			return lead{ID: id, Score: 1}, nil
		})
		wantScore(t, l, err, 1)
		if _, err := leads.Get(ctx, "1"); err == nil {
			t.Error("stored")
		}
	})
}
