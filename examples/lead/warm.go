package lead

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/cache"
)

// warmLeads is how many of the newest leads are warmed: the ones that people look at.
const warmLeads = 200

func (s *Service) declareWarmSet() error {
	return s.leads.DeclareWarm(cache.WarmSet[Lead]{
		Name: "newest-leads",
		Keys: func(ctx context.Context) ([]string, error) {
			rows, err := s.db.Read().Query(ctx, `-- name: NewestLeads
				SELECT id::text FROM "Lead" ORDER BY "createdAt" DESC LIMIT $1`, warmLeads)
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, pgx.RowTo[string])
		},
		LoadMany: func(ctx context.Context, ids []string) (map[string]Lead, error) {
			return getLeads(ctx, s.db.Read(), ids)
		},
	})
}

const (
	busyPool = 0.8
	busyLag  = 5 * time.Second
)

// databaseBusy says why the database should be left to those who wait for it.
func (s *Service) databaseBusy(context.Context) error {
	if stat := s.db.Stat(); float64(stat.AcquiredConns()) > busyPool*float64(stat.MaxConns()) {
		return fmt.Errorf("%d of %d connections to the primary are in use", stat.AcquiredConns(), stat.MaxConns())
	}
	for _, node := range s.db.Nodes() {
		if node.Role == "replica" && node.Staleness > busyLag {
			return fmt.Errorf("replica %s is %v behind", node.Name, node.Staleness.Round(time.Second))
		}
	}
	return nil
}

// Bottleneck names what more workers would only make slower, for the autoscaler.
func (s *Service) Bottleneck(ctx context.Context) (string, error) {
	if s.databaseBusy(ctx) != nil {
		return "database", nil
	}
	return "", nil
}
