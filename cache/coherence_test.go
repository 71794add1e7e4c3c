package cache

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Callers that come after the news of a delete do not share a load from before it, which may go on for long.
func TestLoadFromBeforeTheNewsIsNotShared(t *testing.T) {
	for name, invalidate := range map[string]func(ctx context.Context, there *Store) error{
		"delete": func(ctx context.Context, there *Store) error { return Of[lead](there, "lead").Delete(ctx, "1") },
		"set": func(ctx context.Context, there *Store) error {
			return Of[lead](there, "lead").Set(ctx, "1", lead{Score: 2})
		},
		"tag":     func(ctx context.Context, there *Store) error { return there.InvalidateTags(ctx, "t") },
		"pattern": func(ctx context.Context, there *Store) error { _, err := there.Invalidate(ctx, "*"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, rdb redis.UniversalClient) {
				ctx := testContext(t)
				here := running(t, newStore(t, rdb, nil))
				there := sibling(t, here)
				leads, g := Of[lead](here, "lead", Tags(func(string, lead) []string { return []string{"t"} })), newGate()
				old := background(ctx, leads, "1", g.load)
				<-g.entered
				if name == "tag" { // an entry that has the tag is what makes the tag known
					if _, err := leads.Load(ctx, "2", loads(lead{})); err != nil {
						t.Fatal(err)
					}
				}
				if err := invalidate(ctx, there); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the news", func() bool { return here.rules.Load().current(here, here.now()) && here.clockCurrent() })
				time.Sleep(100 * time.Millisecond) // the news of a key have no sign of their own
				after := background(ctx, leads, "1", loads(lead{Score: 2}))
				if name == "tag" { // the claim of the one from before stands; what it brings is gone
					time.Sleep(50 * time.Millisecond)
					close(g.release)
				}
				select {
				case got := <-after:
					wantScore(t, got.lead, got.err, 2)
				case <-time.After(3 * time.Second):
					t.Error("a caller from after the news waits for the load from before it")
				}
				if name != "tag" {
					close(g.release)
				}
				<-old
			})
		})
	}
}
