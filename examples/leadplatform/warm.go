package main

import (
	"context"

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
		Load: func(ctx context.Context, id string) (Lead, error) { return getLead(ctx, s.db.Read(), id) },
	})
}
