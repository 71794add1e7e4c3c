package migrations

import (
	"context"
	"database/sql"
	"embed"
	"path"
	"strings"

	"github.com/pressly/goose/v3"
)

//go:embed *.sql
var files embed.FS

//go:embed 0* 2*
var texts embed.FS

// All are the migrations of the example.
func All() Set {
	return Set{SQL: files, Go: []*goose.Migration{outbox(), readOnly(), addPerformanceIndexes()}, Text: texts}
}

const (
	// lastTable is the last migration that makes tables. To revert it, or one before it, drops rows.
	lastTable = 3
	// performanceIndexes makes queries faster; they work without it.
	performanceIndexes = 20240101000000
)

// needed reports whether the service cannot work without a migration.
func needed(version int64) bool { return version != performanceIndexes }

// Name is what people call a migration.
func Name(s *goose.Source) string {
	return strings.TrimSuffix(path.Base(s.Path), path.Ext(s.Path))
}

// inGo makes a migration of functions. Its source is the file that it stands in, whose number is the version.
func inGo(source string, up, down goose.GoFunc) *goose.Migration {
	version, err := goose.NumericComponent(source)
	if err != nil {
		version = 0 // which the provider refuses, with the source's name
	}
	m := goose.NewGoMigration(version, &up, &down)
	m.Source = source
	return m
}

// inTx is a step of statements that commit with the migration's record, and wait for no lock longer than others can bear.
func inTx(statements ...string) goose.GoFunc {
	return goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		for _, statement := range append([]string{`SET LOCAL lock_timeout = '3s'`}, statements...) {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	}}
}
