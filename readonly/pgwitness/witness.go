package pgwitness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware/readonly"
)

// Database is the primary: *dbsplit.DB, whose gate leaves it readable, or *pgxpool.Pool.
type Database interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Options configure a Witness.
type Options struct {
	// Ours are the application_names of this service's programs that may write: dbsplit.Options.Name of each. A name followed
	// by a space and more is ours too, except "<name> reads" and "<name> monitor", which cannot write. Zero means "db",
	// dbsplit's default.
	Ours []string
	// Lock is the key of the advisory lock that writing transactions hold, as dbsplit.Options.FenceLock says. Zero means none.
	Lock int64
	// Timeout bounds each question. Zero means 1 s.
	Timeout time.Duration
}

// Witness implements readonly.Witness.
type Witness struct {
	db      Database
	options Options
}

var _ readonly.Witness = (*Witness)(nil)

// New returns a Witness on db, which stays the caller's. Nothing is asked yet.
func New(db Database, options *Options) (*Witness, error) {
	w := &Witness{db: db}
	if options != nil {
		w.options = *options
	}
	if len(w.options.Ours) == 0 {
		w.options.Ours = []string{"db"}
	}
	if w.options.Timeout == 0 {
		w.options.Timeout = time.Second
	}
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("pgwitness: a database is needed"))
	}
	for _, name := range w.options.Ours {
		if name == "" {
			errs = append(errs, errors.New("pgwitness: Options.Ours has an empty name: give dbsplit.Options.Name of each program"))
		}
	}
	if w.options.Timeout < 0 {
		errs = append(errs, fmt.Errorf("pgwitness: Options.Timeout is %v, want a positive duration", w.options.Timeout))
	}
	return w, errors.Join(errs...)
}

// serverSQL names the cluster and its timeline, which a promotion changes. On a standby it fails.
const serverSQL = `(select system_identifier from pg_control_system())::text || '/' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)`

// Mark implements readonly.Witness. PostgreSQL gives out a number even in a read-only transaction.
func (w *Witness) Mark(ctx context.Context) (server string, mark uint64, err error) {
	err = w.ask(ctx, `-- name: readonly_mark
select `+serverSQL+`, pg_current_xact_id()::text::bigint`, nil, &server, &mark)
	return server, mark, err
}

// lookSQL joins the numbers of the snapshot, which are the proof, with who has them, which only names. pg_locks knows 32
// bits of a number. A number whose owner is not known is taken for one of this database's. Numbers of other databases'
// transactions do not count: they write nothing here.
const lookSQL = `-- name: readonly_look
with s as materialized (select pg_current_snapshot() as snap),
held as (
	select l.pid, ((l.transactionid::text)::bigint) as low from pg_locks l
	where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted),
running as (
	select x::text::bigint as number from s, pg_snapshot_xip(snap) as x
	union
	select (pg_snapshot_xmax(snap)::text::bigint & ~4294967295::bigint) | h.low from s, held h
	where h.low >= pg_snapshot_xmax(snap)::text::bigint & 4294967295),
owned as (
	select r.number, a.pid, a.datid, a.application_name, a.usename, a.state, a.xact_start,
		p.gid is not null as prepared
	from running r
	left join held h on h.low = r.number & 4294967295
	left join pg_stat_activity a on a.pid = h.pid
	left join pg_prepared_xacts p on (p.transaction::text)::bigint = r.number & 4294967295)
select ` + serverSQL + `,
	greatest((select pg_snapshot_xmax(snap)::text::bigint from s), (select max(number) + 1 from running)),
	coalesce((select json_agg(json_build_object('number', number, 'pid', coalesce(pid, 0), 'application', coalesce(application_name, ''),
			'user', coalesce(usename, ''), 'state', coalesce(state, ''), 'since', xact_start) order by number)
		from owned where not prepared and (datid is null or datid = (select oid from pg_database where datname = current_database()))), '[]')::text,
	coalesce((select json_agg(json_build_object('pid', pid, 'application', application_name, 'user', usename, 'state', state, 'since', xact_start) order by pid)
		from pg_stat_activity a
		where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend' and backend_xid is null
			and state <> 'idle' and xact_start is not null
			and exists (select from unnest($1::text[]) o where application_name = o
				or starts_with(application_name, o || ' ') and application_name not in (o || ' reads', o || ' monitor'))), '[]')::text,
	coalesce((select json_agg(json_build_object('name', gid, 'number', (pg_snapshot_xmax(snap)::text::bigint & ~4294967295::bigint) | (transaction::text)::bigint) order by gid)
		from pg_prepared_xacts, s where database = current_database()), '[]')::text,
	not pg_has_role(current_user, 'pg_read_all_stats', 'usage')`

// transaction is readonly.Transaction as the query has it.
type transaction struct {
	Number      uint64
	PID         int
	Application string
	User        string
	State       string
	Since       *time.Time
}

// Look implements readonly.Witness.
func (w *Witness) Look(ctx context.Context) (readonly.Sight, error) {
	var sight readonly.Sight
	if w.options.Lock != 0 {
		if err := w.lock(ctx); err != nil {
			return sight, err
		}
	}
	var numbered, unnumbered, prepared string
	if err := w.ask(ctx, lookSQL, []any{w.options.Ours}, &sight.Server, &sight.Next, &numbered, &unnumbered, &prepared, &sight.Blind); err != nil {
		return readonly.Sight{}, err
	}
	err := errors.Join(w.read(numbered, &sight.Numbered), w.read(unnumbered, &sight.Unnumbered), json.Unmarshal([]byte(prepared), &sight.Prepared))
	if err != nil {
		return readonly.Sight{}, fmt.Errorf("pgwitness: the answer of PostgreSQL is not understood: %w", err)
	}
	for i := range sight.Prepared {
		if p := &sight.Prepared[i]; p.Number >= sight.Next && p.Number >= 1<<32 {
			p.Number -= 1 << 32 // it was prepared before the low half began anew
		}
	}
	return sight, nil
}

// lockSQL waits its turn behind those that hold the lock, so that newer ones do not keep it waiting for ever.
const lockSQL = `-- name: readonly_lock
with patience as materialized (select set_config('lock_timeout', '200ms', true))
select pg_advisory_xact_lock($1::bigint + 0 * length(set_config)) from patience`

const stateLockNotAvailable = "55P03"

func (w *Witness) lock(ctx context.Context) error {
	var nothing any
	err := w.ask(ctx, lockSQL, []any{w.options.Lock}, &nothing)
	if pgErr := new(pgconn.PgError); errors.As(err, &pgErr) && pgErr.Code == stateLockNotAvailable {
		return fmt.Errorf("pgwitness: a transaction that began before holds the advisory lock %d: wait for it, or end it (pg_locks names it)", w.options.Lock)
	}
	return err
}

func (w *Witness) read(text string, into *[]readonly.Transaction) error {
	var list []transaction
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return err
	}
	for _, t := range list {
		out := readonly.Transaction{Number: t.Number, PID: t.PID, Application: t.Application, User: t.User, State: t.State, Ours: w.ours(t.Application)}
		if t.Since != nil {
			out.Since = t.Since.UTC()
		}
		*into = append(*into, out)
	}
	return nil
}

func (w *Witness) ours(application string) bool {
	for _, name := range w.options.Ours {
		if application == name || strings.HasPrefix(application, name+" ") {
			return true
		}
	}
	return false
}

func (w *Witness) ask(ctx context.Context, sql string, args []any, into ...any) error {
	ctx, cancel := context.WithTimeout(ctx, w.options.Timeout)
	defer cancel()
	rows, err := w.db.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("pgwitness: the primary does not answer: %w", err)
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(into...)
	}
	rows.Close()
	if err = errors.Join(err, rows.Err()); err != nil {
		return fmt.Errorf("pgwitness: the primary does not answer: %w", err)
	}
	return nil
}
