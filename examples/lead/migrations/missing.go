package migrations

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Querier is a database or one of its replicas.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Missing returns the names of the migrations that the service needs and a database does not have, oldest first.
func Missing(ctx context.Context, q Querier) ([]string, error) {
	applied, err := applied(ctx, q)
	if err != nil {
		return nil, err
	}
	sources, err := All().sources()
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, s := range sources {
		if needed(s.Version) && !applied[s.Version] {
			missing = append(missing, Name(s))
		}
	}
	return missing, nil
}

const stateNoTable = "42P01"

// applied reads goose's record. No table means that nothing was ever applied.
func applied(ctx context.Context, q Querier) (map[int64]bool, error) {
	rows, err := q.Query(ctx, `-- name: Migrations
		SELECT version_id FROM goose_db_version WHERE is_applied`)
	if err == nil {
		var versions []int64
		versions, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		if err == nil {
			out := map[int64]bool{}
			for _, v := range versions {
				out[v] = true
			}
			return out, nil
		}
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == stateNoTable {
		return nil, nil
	}
	return nil, err
}

// ErrMissing says which migrations a service waits for.
type ErrMissing []string

// Error names them and says what to do.
func (e ErrMissing) Error() string {
	return "the database lacks " + strings.Join(e, ", ") + ": run leadapi migrate up"
}
