package lead

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Statement is one of the service's SQL statements, as the service runs it, for a test of the database. It has either a
// Read or a Write, for a lead that exists.
type Statement struct {
	Name  string
	Read  func(ctx context.Context, q querier, id string) error
	Write func(ctx context.Context, tx pgx.Tx, id string) error
}

// Statements are those of requests and jobs.
func Statements() []Statement {
	return []Statement{
		{Name: "GetLead", Read: func(ctx context.Context, q querier, id string) error {
			_, err := getLead(ctx, q, id)
			return err
		}},
		{Name: "ListLeads", Read: func(ctx context.Context, q querier, _ string) error {
			_, err := listLeads(ctx, q, 20)
			return err
		}},
		{Name: "CreateLead", Write: func(ctx context.Context, tx pgx.Tx, _ string) error {
			_, err := createLead(ctx, tx, Lead{ID: uuid.NewString(), Name: "Ada", Email: "ada@example.com", Product: "home"})
			return err
		}},
		{Name: "UpdateLead", Write: func(ctx context.Context, tx pgx.Tx, id string) error {
			_, err := updateProduct(ctx, tx, id, "auto")
			return err
		}},
		{Name: "ScoreLead", Write: func(ctx context.Context, tx pgx.Tx, id string) error { return setScore(ctx, tx, id, 50) }},
		{Name: "RecordEvent", Write: func(ctx context.Context, tx pgx.Tx, id string) error { return recordEvent(ctx, tx, id, "tested") }},
	}
}
