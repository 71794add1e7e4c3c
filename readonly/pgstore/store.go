package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/readonly"
)

// Schema makes the two tables. The columns epoch and enabled are for everybody to read; state is this package's.
const Schema = `
create table if not exists scaleaware_readonly (
	name    text primary key,
	epoch   bigint not null,
	enabled boolean not null,
	state   text not null,
	changed timestamptz not null default clock_timestamp()
);
create table if not exists scaleaware_readonly_instance (
	name     text not null,
	instance text not null,
	ack      text not null,
	given    timestamptz not null,
	until    timestamptz not null,
	primary key (name, instance)
);`

// Database is the primary: *dbsplit.DB or *pgxpool.Pool.
type Database interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
}

// Options configure a Store.
type Options struct {
	// Name tells switches in one database apart. Zero means "default".
	Name string
	// Poll is how often Watch looks. Zero means 250 ms.
	Poll time.Duration
	// Timeout bounds each statement's wait for the row. Zero means 1 s.
	Timeout time.Duration
}

// Store implements readonly.Store.
type Store struct {
	db      Database
	options Options
}

var _ readonly.Store = (*Store)(nil)

// New returns a Store on db, which stays the caller's to close. The tables are made by Migrate, or by whoever runs Schema.
func New(db Database, options *Options) (*Store, error) {
	s := &Store{db: db}
	if options != nil {
		s.options = *options
	}
	if s.options.Name == "" {
		s.options.Name = "default"
	}
	if s.options.Poll == 0 {
		s.options.Poll = 250 * time.Millisecond
	}
	if s.options.Timeout == 0 {
		s.options.Timeout = time.Second
	}
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("pgstore: a database is needed"))
	}
	if len(s.options.Name) > 100 {
		errs = append(errs, errors.New("pgstore: Options.Name is longer than 100 bytes"))
	}
	if s.options.Poll < 0 || s.options.Timeout < 0 {
		errs = append(errs, fmt.Errorf("pgstore: Options.Poll is %v and Timeout is %v, want positive durations", s.options.Poll, s.options.Timeout))
	}
	return s, errors.Join(errs...)
}

// Migrate runs Schema. It may be run at each start, by several at once.
func (s *Store) Migrate(ctx context.Context) error {
	return s.write(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock(hashtextextended('scaleaware_readonly', 0))"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, Schema)
		return err
	})
}

// Load implements readonly.Store.
func (s *Store) Load(ctx context.Context) (readonly.State, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	rows, err := s.db.Query(ctx, "select state from scaleaware_readonly where name = $1", s.options.Name)
	if err != nil {
		return readonly.State{}, failed(err)
	}
	blob, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if errors.Is(err, pgx.ErrNoRows) {
		return readonly.State{}, nil
	}
	if err != nil {
		return readonly.State{}, failed(err)
	}
	return decode(blob)
}

// Save implements readonly.Store.
func (s *Store) Save(ctx context.Context, state readonly.State) (readonly.State, error) {
	blob, err := json.Marshal(state)
	if err != nil {
		return readonly.State{}, err
	}
	if state.Epoch > math.MaxInt64 {
		return readonly.State{}, fmt.Errorf("pgstore: epoch %d is more than a bigint holds", state.Epoch)
	}
	var won string
	err = s.write(ctx, func(tx pgx.Tx) error {
		// The second half sees the row as it was before the first, which then has changed nothing.
		return tx.QueryRow(ctx, `
with saved as (
	insert into scaleaware_readonly as r (name, epoch, enabled, state) values ($1, $2, $3, $4)
	on conflict (name) do update set epoch = excluded.epoch, enabled = excluded.enabled, state = excluded.state, changed = clock_timestamp()
	where r.epoch < excluded.epoch
	returning state)
select state from saved
union all
select state from scaleaware_readonly where name = $1 and not exists (select from saved)`, s.options.Name, int64(state.Epoch), state.Enabled, string(blob)).Scan(&won)
	})
	if errors.Is(err, pgx.ErrNoRows) { // another has made the row since this statement began
		return s.Load(ctx)
	}
	if err != nil {
		return readonly.State{}, err
	}
	return decode(won)
}

func decode(blob string) (state readonly.State, err error) {
	if err := json.Unmarshal([]byte(blob), &state); err != nil {
		return readonly.State{}, fmt.Errorf("pgstore: the row of the read-only state is not ours, delete it or choose another Options.Name: %w", err)
	}
	return state, nil
}

// Watch implements readonly.Store.
func (s *Store) Watch(ctx context.Context, changed func()) error {
	tick := time.NewTicker(s.options.Poll)
	defer tick.Stop()
	last, err := s.Load(ctx)
	changed() // after it, or a change between the two would never be told
	for {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var now readonly.State
		if now, err = s.Load(ctx); err == nil && !now.Equal(last) {
			last = now
			changed()
		}
	}
}

// Acknowledge implements readonly.Store.
func (s *Store) Acknowledge(ctx context.Context, instance string, ack readonly.Ack, ttl time.Duration) error {
	blob, err := json.Marshal(ack)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx pgx.Tx) error {
		if ttl > 0 {
			_, err := tx.Exec(ctx, `
insert into scaleaware_readonly_instance (name, instance, ack, given, until)
values ($1, $2, $3, clock_timestamp(), clock_timestamp() + $4::bigint * interval '1 microsecond')
on conflict (name, instance) do update set ack = excluded.ack, given = excluded.given, until = excluded.until`,
				s.options.Name, instance, string(blob), ttl.Microseconds())
			return err
		}
		_, err := tx.Exec(ctx, "delete from scaleaware_readonly_instance where name = $1 and (instance = $2 or until < clock_timestamp())", s.options.Name, instance)
		return err
	})
}

// Acknowledged implements readonly.Store.
func (s *Store) Acknowledged(ctx context.Context) (map[string]readonly.Ack, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	rows, err := s.db.Query(ctx, `
select instance, ack, (extract(epoch from clock_timestamp() - given) * 1000000)::bigint
from scaleaware_readonly_instance where name = $1 and until > clock_timestamp()`, s.options.Name)
	if err != nil {
		return nil, failed(err)
	}
	acks := map[string]readonly.Ack{}
	var instance, blob string
	var age int64
	_, err = pgx.ForEachRow(rows, []any{&instance, &blob, &age}, func() error {
		var ack readonly.Ack
		if err := json.Unmarshal([]byte(blob), &ack); err != nil {
			return fmt.Errorf("pgstore: the acknowledgement of %q is not ours: %w", instance, err)
		}
		ack.Age = time.Duration(age) * time.Microsecond
		acks[instance] = ack
		return nil
	})
	if err != nil {
		return nil, failed(err)
	}
	return acks, nil
}

// write runs f in a transaction that may write whatever the session's default is.
func (s *Store) write(ctx context.Context, f func(pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(readonly.OwnWrite(ctx), s.options.Timeout)
	defer cancel()
	tx, err := s.db.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadWrite})
	if err != nil {
		return failed(err)
	}
	if err := f(tx); err != nil {
		back, stop := context.WithTimeout(context.WithoutCancel(ctx), s.options.Timeout)
		defer stop()
		_ = tx.Rollback(back) // a failed one closes the connection, which rolls back as well
		if errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return failed(err)
	}
	if err := tx.Commit(ctx); err != nil {
		return failed(err)
	}
	return nil
}

func failed(err error) error {
	return fmt.Errorf("pgstore: the row of the read-only state cannot be had: is the primary up, and was Migrate called? %w", err)
}
