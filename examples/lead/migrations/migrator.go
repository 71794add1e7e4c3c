package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// monthsAhead is how many months beyond the present one "Event" gets partitions for. The operation partitions/Event makes
// later ones.
const monthsAhead = 1

// Migrator changes the schema of one database, one Migrator of the fleet at a time.
type Migrator struct {
	set Set
	db  *dbsplit.DB
	sql *sql.DB
}

// Open needs the primary's URL, past any pooler: the lock belongs to a session, and a pooler may give each statement
// another. It connects when something is done.
func Open(ctx context.Context, primaryURL string) (*Migrator, error) {
	if strings.Contains(primaryURL, "node_pooler=transaction") {
		return nil, errors.New("migrations need a session of their own: give the server's address and not PgBouncer's, in DATABASE_URL_MIGRATIONS")
	}
	db, err := dbsplit.Open(ctx, dbsplit.Nodes{Primary: primaryURL}, nil)
	if err != nil {
		return nil, err
	}
	return &Migrator{set: All(), db: db, sql: sql.OpenDB(db.Connector())}, nil
}

// Close closes what Open opened.
func (m *Migrator) Close() error {
	err := m.sql.Close()
	m.db.Close()
	return err
}

// Report is what Up has done.
type Report struct {
	Applied    []*goose.MigrationResult
	Partitions []string
	// Notes are what could not be had, and is not needed.
	Notes []string
}

// Up applies what is missing, makes the partitions of the coming months, and fails if an index is left unfinished. It may be
// run at any time, by several at once: they wait for one another.
func (m *Migrator) Up(ctx context.Context) (r Report, err error) {
	err = m.alone(ctx, func(provider *goose.Provider) error {
		if r.Applied, err = provider.Up(ctx); err != nil {
			return m.failed(ctx, &r, err)
		}
		report, err := m.db.EnsurePartitions(ctx, "Event", monthsAhead, false)
		if err != nil {
			return fmt.Errorf("partitions of the coming months: %w", err)
		}
		r.Partitions = report.Created
		// For the slow-queries operation, which says itself what it lacks.
		if _, err := m.sql.ExecContext(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements`); err != nil {
			r.Notes = append(r.Notes, fmt.Sprintf("without pg_stat_statements there is no list of slow queries: %v", err))
		}
		left, err := remains(ctx, m.sql)
		if err == nil && len(left) > 0 {
			err = errors.New("all migrations are applied, but:" + list(left))
		}
		return err
	})
	return r, err
}

// failed names the migration that went wrong and what it has left behind.
func (m *Migrator) failed(ctx context.Context, r *Report, err error) error {
	partial, ok := errors.AsType[*goose.PartialError](err)
	if !ok {
		return err
	}
	r.Applied = partial.Applied
	err = fmt.Errorf("migration %s failed: %w", Name(partial.Failed.Source), partial.Err)
	// The context may be what has ended it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if left, leftErr := remains(ctx, m.sql); leftErr == nil && len(left) > 0 {
		err = fmt.Errorf("%w\nit is not recorded as applied, and has left:%s", err, list(left))
	}
	return err
}

// Down reverts the newest migration. Those that make tables are reverted with loseRows only. It refuses while an index is
// unfinished: the migration that has left it is not recorded, so the one before it would be reverted.
func (m *Migrator) Down(ctx context.Context, loseRows bool) (done *goose.MigrationResult, err error) {
	err = m.alone(ctx, func(provider *goose.Provider) error {
		left, err := remains(ctx, m.sql)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return errors.New("a migration has failed halfway. It is not recorded, so there is nothing to revert but what it has left; down would revert the one before it:" + list(left))
		}
		version, err := provider.GetDBVersion(ctx)
		if err != nil {
			return err
		}
		if 0 < version && version <= lastTable && !loseRows {
			return fmt.Errorf("to revert migration %d drops tables with all their rows: if that is meant, give -lose-rows", version)
		}
		done, err = provider.Down(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return errors.New("no migration is applied, there is nothing to revert")
		}
		return err
	})
	return done, err
}

// Status returns every migration with whether it is applied, and what is left unfinished.
func (m *Migrator) Status(ctx context.Context) ([]*goose.MigrationStatus, []Remains, error) {
	provider, err := m.set.Provider(m.sql)
	if err != nil {
		return nil, nil, err
	}
	all, err := provider.Status(ctx)
	if err != nil {
		return nil, nil, err
	}
	left, err := remains(ctx, m.sql)
	return all, left, err
}

// alone holds goose's lock meanwhile, by asking again and again: a session that waited in the server for it would be a
// transaction that CREATE INDEX CONCURRENTLY waits for, and neither would ever go on.
func (m *Migrator) alone(ctx context.Context, do func(*goose.Provider) error) (err error) {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 600))
	if err != nil {
		return err
	}
	provider, err := m.set.Provider(m.sql)
	if err != nil {
		return err
	}
	conn, err := m.sql.Conn(ctx)
	if err != nil {
		return fmt.Errorf("migrations need the primary: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := locker.SessionLock(ctx, conn); err != nil {
		return fmt.Errorf("migrations need the primary, and that no other is running: %w", err)
	}
	defer func() { err = errors.Join(err, locker.SessionUnlock(context.WithoutCancel(ctx), conn)) }()
	return do(provider)
}
