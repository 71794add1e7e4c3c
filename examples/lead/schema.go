package lead

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scaleaware/scaleaware/examples/lead/migrations"
)

// Migrate brings the database to the schema that this version needs. It may be run again at any time.
func Migrate(ctx context.Context, primaryURL string) (err error) {
	m, err := migrations.Open(ctx, primaryURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	report, err := m.Up(ctx)
	for _, note := range report.Notes {
		fmt.Println(note)
	}
	return err
}

// hasSchema returns nil when the database, or the replica that is asked, has every migration that this version needs. It
// does not ask again then: a migration that is reverted must not make the whole fleet unready at once.
func (s *Service) hasSchema(ctx context.Context) error {
	if s.schema.Load() {
		return nil
	}
	missing, err := migrations.Missing(ctx, s.db.Read())
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return migrations.ErrMissing(missing)
	}
	s.schema.Store(true)
	return nil
}

// AwaitSchema returns when the database has what this version needs, or ctx ends. API instances need not call it: they are
// unready meanwhile.
func (s *Service) AwaitSchema(ctx context.Context) {
	told := ""
	for ctx.Err() == nil {
		err := s.hasSchema(ctx)
		if err == nil {
			return
		}
		if told != err.Error() {
			told = err.Error()
			s.log.Warn("waiting for the schema", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
