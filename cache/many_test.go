package cache

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestManyAcrossSlots(t *testing.T) {
	both(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := testContext(t)
		leads := Of[lead](newStore(t, rdb, nil), "lead")
		var ids []string
		for i := range 100 {
			ids = append(ids, fmt.Sprint(i))
			if i%2 == 0 {
				if err := leads.Set(ctx, fmt.Sprint(i), lead{Score: int64(i)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := rdb.Set(ctx, leads.prefix+"2", "garbage", 0).Err(); err != nil {
			t.Fatal(err)
		}
		bad := strings.Repeat("k", maxKeyBytes+1)
		found, err := leads.GetMany(ctx, append(ids, "0", "", bad))
		var failed KeyErrors
		if !errors.As(err, &failed) || len(failed) != 2 || !errors.Is(failed[bad], ErrKey) || !errors.Is(err, ErrKey) {
			t.Errorf("errors: %v", err)
		}
		if len(found) != 49 || found["4"].Score != 4 {
			t.Errorf("found %d", len(found))
		}
		if _, ok := found["2"]; ok {
			t.Error("garbage was found")
		}
		if err := leads.Delete(ctx, ids...); err != nil {
			t.Fatal(err)
		}
		if found, err := leads.GetMany(ctx, ids); err != nil || len(found) != 0 {
			t.Errorf("after delete: %d, %v", len(found), err)
		}
	})
}

func TestKeysStayInTheirView(t *testing.T) {
	ctx := testContext(t)
	s := newStore(t, client(t, one.Get(t)), nil)
	a, b := Of[lead](s, "a"), Of[lead](s, "a.b")
	for _, id := range []string{"b:1", ".b:1", ":", "~ttl", "{x}", "*", "\x00", "ü"} {
		if err := a.Set(ctx, id, lead{Score: 1}); err != nil {
			t.Fatal(err)
		}
		l, err := a.Get(ctx, id)
		wantScore(t, l, err, 1)
		if _, err := b.Get(ctx, id); !errors.Is(err, ErrMiss) {
			t.Errorf("%q is in the other view: %v", id, err)
		}
	}
	if _, err := b.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("got %v", err)
	}
}
