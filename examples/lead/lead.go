package lead

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/cache"
)

// Lead is somebody who asked for an offer.
type Lead struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Email     string    `json:"email"`
	Product   string    `json:"product"`
	Score     *int      `json:"score"`
	Revision  int       `json:"revision"`
	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// errNoLead is a lead that does not exist. The cache must know it from an error: it has no stale answer to that.
var errNoLead = fmt.Errorf("no such lead: %w", cache.ErrNotFound)

const leadColumns = `id::text, name, email, product, score, revision, "createdAt", "updatedAt"`

// querier is what a transaction, the primary and a replica have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func getLead(ctx context.Context, q querier, id string) (Lead, error) {
	return one(q.Query(ctx, `-- name: GetLead
		SELECT `+leadColumns+` FROM "Lead" WHERE id = $1`, id))
}

func getLeads(ctx context.Context, q querier, ids []string) (map[string]Lead, error) {
	rows, err := q.Query(ctx, `-- name: GetLeads
		SELECT `+leadColumns+` FROM "Lead" WHERE id = ANY($1)`, ids)
	if err != nil {
		return nil, err
	}
	leads, err := pgx.CollectRows(rows, scanLead)
	found := make(map[string]Lead, len(leads))
	for _, l := range leads {
		found[l.ID] = l
	}
	return found, err
}

func listLeads(ctx context.Context, q querier, limit int) ([]Lead, error) {
	rows, err := q.Query(ctx, `-- name: ListLeads
		SELECT `+leadColumns+` FROM "Lead" ORDER BY "createdAt" DESC LIMIT $1`, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanLead)
}

func createLead(ctx context.Context, tx pgx.Tx, l Lead) (Lead, error) {
	return one(tx.Query(ctx, `-- name: CreateLead
		INSERT INTO "Lead" (id, name, email, product) VALUES ($1, $2, $3, $4) RETURNING `+leadColumns,
		l.ID, l.Name, l.Email, l.Product))
}

func updateProduct(ctx context.Context, tx pgx.Tx, id, product string) (Lead, error) {
	return one(tx.Query(ctx, `-- name: UpdateLead
		UPDATE "Lead" SET product = $2, revision = revision + 1, "updatedAt" = now() WHERE id = $1 RETURNING `+leadColumns,
		id, product))
}

// setScore may be repeated: the same score of the same revision changes nothing more.
func setScore(ctx context.Context, tx pgx.Tx, id string, score int) error {
	_, err := tx.Exec(ctx, `-- name: ScoreLead
		UPDATE "Lead" SET score = $2, "updatedAt" = now() WHERE id = $1 AND score IS DISTINCT FROM $2`, id, score)
	return err
}

func recordEvent(ctx context.Context, tx pgx.Tx, leadID, kind string) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `-- name: RecordEvent
		INSERT INTO "Event" (id, "entityType", "entityId", kind) VALUES ($1, 'Lead', $2, $3)`, id, leadID, kind)
	return err
}

func one(rows pgx.Rows, err error) (Lead, error) {
	if err != nil {
		return Lead{}, err
	}
	lead, err := pgx.CollectExactlyOneRow(rows, scanLead)
	if errors.Is(err, pgx.ErrNoRows) {
		return Lead{}, errNoLead
	}
	return lead, err
}

func scanLead(row pgx.CollectableRow) (l Lead, err error) {
	err = row.Scan(&l.ID, &l.Name, &l.Email, &l.Product, &l.Score, &l.Revision, &l.CreatedAt, &l.UpdatedAt)
	return l, err
}
