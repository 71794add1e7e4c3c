package consistency

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/history"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// startControl runs a client that carries nothing: it writes to the primary and reads from the replicas in turn, over plain
// connections. What it is shown is what the others are protected from. The report comes from stop.
func startControl(t *testing.T, c *pgcluster.Cluster, database string, own, peer int64) (stop func() *history.Report) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	checker := history.New()
	var wg sync.WaitGroup
	var report *history.Report
	stop = func() *history.Report {
		cancel()
		wg.Wait()
		if report == nil {
			report = checker.Report(nil)
		}
		return report
	}
	t.Cleanup(func() { stop() })
	wg.Go(func() {
		if err := control(ctx, checker.Session("control"), c, database, own, peer); err != nil {
			t.Errorf("control: %v", err)
		}
	})
	return stop
}

func control(ctx context.Context, h *history.Session, c *pgcluster.Cluster, database string, own, peer int64) error {
	safe := context.WithoutCancel(ctx)
	servers := c.Servers()
	query := make([]func(sql string, args []any, into ...any) error, len(servers))
	for i, s := range servers {
		conn, err := s.Connect(safe, database)
		if err != nil {
			return err
		}
		defer conn.Close(safe)
		query[i] = func(sql string, args []any, into ...any) error {
			return conn.QueryRow(safe, sql, args...).Scan(into...)
		}
	}
	began := time.Now()
	for turn := 0; ; turn++ {
		op := history.Op{Kind: history.Write, Key: own, Via: "nothing", Node: "primary", Start: time.Since(began)}
		if err := query[0](`update counters set value = value + 1 where id = $1 returning value`, []any{own}, &op.Value); err != nil {
			return err
		}
		op.End = time.Since(began)
		h.Add(op)
		for i := 1; i < len(servers); i++ {
			mine := history.Op{Key: own, Via: "nothing", Start: time.Since(began)}
			theirs := history.Op{Key: peer, Via: "nothing", Start: mine.Start}
			if err := query[i](readTwo, []any{own, peer}, &mine.Value, &theirs.Value, &mine.Node); err != nil {
				return fmt.Errorf("%s: %w", servers[i].Name(), err)
			}
			theirs.Node, mine.End = mine.Node, time.Since(began)
			theirs.End = mine.End
			h.Add(mine)
			h.Add(theirs)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}
