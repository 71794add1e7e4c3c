package cache

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// While two versions of a program run whose types differ, each overwrites what the other has stored. What a delete by a caller
// who wrote asks for stays all the same.
func TestDeleteOutlivesValuesOfAnotherSchema(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, many := range []bool{false, true} {
			ctx := testContext(t)
			s := newStore(t, rdb, nil)
			was, is := Of[string](sibling(t, s), "lead"), Of[lead](s, "lead")
			if err := is.Delete(wrote(ctx, at(8)), "1"); err != nil {
				t.Fatal(err)
			}
			_, err := was.Load(ctx, "1", func(ctx context.Context, _ string) (string, error) {
				scaleaware.WatermarkFrom(ctx).Saw(at(8))
				return "", nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if many {
				found, err := is.LoadMany(ctx, []string{"1"}, ofEach(loads(lead{Score: 7}, at(7))))
				wantScore(t, found["1"], err, 7)
			}
			wantShutOut(t, ctx, is, 7)
		}
	})
}
