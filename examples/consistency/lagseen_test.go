package consistency

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// far is from where on a replica counts as far behind.
const far = 2 * time.Second

// lagSeen is how far behind the replicas truly were: which delay was set says nothing of when it was reached.
type lagSeen struct {
	most [2]time.Duration
	far  [2]time.Duration // for how long
}

// written is where the primary's log ended at a time.
type written struct {
	at  time.Time
	lsn int64
}

// watch measures until ctx ends. A replica is behind by the age of the oldest position that it has not replayed.
func (l *lagSeen) watch(ctx context.Context, c *pgcluster.Cluster) error {
	var conns [3]*pgx.Conn
	for i, s := range c.Servers() {
		conn, err := s.Connect(ctx, "postgres")
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		conns[i] = conn
	}
	ask := func(conn *pgx.Conn, function string) (lsn int64, err error) {
		err = conn.QueryRow(ctx, "select ("+function+"() - '0/0')::bigint").Scan(&lsn)
		return lsn, err
	}
	var log []written
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for {
		// The position was there before the answer came.
		lsn, err := ask(conns[0], "pg_current_wal_flush_lsn")
		if err != nil {
			return err
		}
		log = append(log, written{time.Now(), lsn})
		replayed := int64(1) << 62
		step := time.Since(last)
		last = time.Now()
		for i, conn := range conns[1:] {
			asked := time.Now()
			lsn, err := ask(conn, "pg_last_wal_replay_lsn")
			if err != nil {
				return err
			}
			replayed = min(replayed, lsn)
			for _, w := range log {
				if w.lsn > lsn {
					behind := asked.Sub(w.at)
					l.most[i] = max(l.most[i], behind)
					if behind >= far {
						l.far[i] += step
					}
					break
				}
			}
		}
		for len(log) > 1 && log[0].lsn <= replayed {
			log = log[1:]
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *lagSeen) String() string {
	const ms = time.Millisecond
	return fmt.Sprintf("the replicas were behind by up to %v and %v, by %v or more for %v and %v",
		l.most[0].Round(ms), l.most[1].Round(ms), far, l.far[0].Round(ms), l.far[1].Round(ms))
}
