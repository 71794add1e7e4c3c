package migrations

import (
	"database/sql"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// Set is migrations, ordered by the numbers of their sources.
type Set struct {
	SQL fs.FS
	Go  []*goose.Migration
	// Text has the sources of both, for the comments in them. Zero means SQL.
	Text fs.FS
}

// Provider runs the set on db. Whoever calls it keeps others from doing so at the same time.
func (s Set) Provider(db *sql.DB) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectPostgres, db, s.SQL, goose.WithGoMigrations(s.Go...), goose.WithDisableGlobalRegistry(true))
}

// sources needs no server.
func (s Set) sources() ([]*goose.Source, error) {
	provider, err := s.Provider(new(sql.DB))
	if err != nil {
		return nil, err
	}
	return provider.ListSources(), nil
}
