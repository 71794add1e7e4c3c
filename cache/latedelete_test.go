package cache

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Of two deletes by callers who wrote one after the other, the first may come last, when what was loaded after the second has landed.
// It does not let in what the second has shut out.
func TestLateDeleteLetsNothingOlderIn(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		if err := leads.Delete(wrote(ctx, at(8)), "1"); err != nil {
			t.Fatal(err)
		}
		l, err := leads.Load(ctx, "1", loads(lead{Score: 8}, at(8)))
		wantScore(t, l, err, 8)
		if err := leads.Delete(wrote(ctx, at(7)), "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := leads.Load(ctx, "1", loads(lead{Score: 7}, at(7))); err != nil {
			t.Fatal(err)
		}
		if l, err := leads.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
			t.Errorf("got %+v, %v, which the second delete has shut out", l, err)
		}
	})
}
