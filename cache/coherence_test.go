package cache

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// allHeard waits until a running store has heard all that the masters have to say: news come in order, so a change of a key
// of each is the last of them.
func allHeard(t *testing.T, ctx context.Context, s *Store) {
	t.Helper()
	s.coverage.mu.Lock()
	masters := len(s.coverage.claims)
	s.coverage.mu.Unlock()
	heard := map[*line]bool{}
	for i := 0; len(heard) < masters; i++ {
		key := fmt.Sprintf("%slast:%d", s.opts.Prefix, i)
		on := s.coverage.at(s.coverage.slot(key), s.now())
		if on == nil || heard[on.line] {
			continue
		}
		heard[on.line] = true
		changed, done := s.waits.on(key)
		if err := s.rdb.Set(ctx, key, "", time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("no news of", key)
		}
		done()
	}
}

func waitsFor(s *Store, key string) bool {
	s.waits.mu.Lock()
	defer s.waits.mu.Unlock()
	return len(s.waits.byKey[key]) > 0
}

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
				allHeard(t, ctx, here)
				eventually(t, "the news", func() bool { return here.rules.Load().current(here, here.now()) && here.clockCurrent() })
				after := background(ctx, leads, "1", loads(lead{Score: 2}))
				if name == "tag" { // the claim of the one from before stands; what it brings is gone
					eventually(t, "somebody waits for the claim", func() bool { return waitsFor(here, leads.prefix+"1") })
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
