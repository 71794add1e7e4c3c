package dbsplit

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// Replicas are added, and taken out, while Run begins and ends.
func TestTopologyWhileRunBeginsAndEnds(t *testing.T) {
	for range 30 {
		db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 20 {
				if err := db.AddReplica(fmt.Sprintf("postgres://127.0.0.1:2/x%d?node_addr=127.0.1.%d", i, i)); err != nil {
					t.Error(err)
				}
			}
			for i := range 20 {
				if err := db.RemoveReplica(fmt.Sprintf("127.0.1.%d:2", i)); err != nil {
					t.Error(err)
				}
			}
			cancel()
		})
		for ctx.Err() == nil {
			short, stop := context.WithCancel(ctx)
			go stop()
			if err := db.Run(short); err != nil {
				t.Error(err)
			}
			stop()
		}
		wg.Wait()
		if db.snap.Load() != nil {
			t.Error("there is a snapshot although Run has ended")
		}
		db.Close()
	}
}
