package dbsplit

import (
	"context"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

// CancelOptions adjust CancelLongRunning.
type CancelOptions struct {
	// OlderThan is how long a statement must have run. Zero means 5 min.
	OlderThan time.Duration
	// Transactions judges by the age of the transaction, and finds sessions that are idle in one, too. Those have no
	// statement to cancel: only Terminate ends them.
	Transactions bool
	// Terminate ends the session instead of the statement.
	Terminate bool
	// DryRun reports what would be cancelled.
	DryRun bool
}

// CancelReport is what CancelLongRunning did on one node.
type CancelReport struct {
	Node string `json:"node"`
	// Statements are those that were old enough.
	Statements []CancelledStatement `json:"statements"`
	// Hidden counts the sessions of other roles that this role may not look into.
	Hidden int `json:"hidden,omitempty"`
	// Error says why the node was not asked.
	Error string `json:"error,omitempty"`
}

// CancelledStatement is one statement and what became of it.
type CancelledStatement struct {
	PID         int32  `json:"pid"`
	User        string `json:"user"`
	Application string `json:"application"`
	// State is pg_stat_activity's: active, idle in transaction, or idle in transaction (aborted).
	State string `json:"state"`
	// Started is when the statement began; with CancelOptions.Transactions, its transaction. Seconds is its age.
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	// Query is the beginning of the statement's text, of the last one when the session is idle.
	Query string `json:"query"`
	// Result is cancelled, terminated, gone (it ended by itself), idle (there is nothing to cancel: terminate it), refused
	// (this role may not) or dry-run.
	Result string `json:"result"`

	backendStart time.Time
}

const defaultOlderThan = 5 * time.Minute

// Walsenders are active for as long as their replicas are connected: without the test of backend_type this would end
// replication.
const longRunningSQL = `-- name: dbsplit_long_running
select pid, coalesce(usename, ''), coalesce(application_name, ''), state, started,
	extract(epoch from clock_timestamp() - started)::float8, left(query, 200), backend_start
from (select *, case when $2 then coalesce(xact_start, query_start) else query_start end as started from pg_stat_activity) a
where backend_type = 'client backend' and datname = current_database() and pid <> pg_backend_pid()
	and (state = 'active' or $2 and state like 'idle in transaction%') and started < clock_timestamp() - $1::interval
order by started`

// Sessions of roles that this one is no member of show their database, but neither type, state nor times.
const hiddenSQL = `-- name: dbsplit_hidden_sessions
select count(*) from pg_stat_activity where datname = current_database() and backend_type is null and pid <> pg_backend_pid()`

// CancelLongRunning cancels old statements of client sessions in this database, on every node: a long read on a replica
// holds up replay there. Replication, autovacuum and other databases are never touched. It works in read-only mode, and
// over a connection of its own to each node, so also when those old statements have all of a pool's.
func (db *DB) CancelLongRunning(ctx context.Context, opts CancelOptions) ([]CancelReport, error) {
	if opts.OlderThan == 0 {
		opts.OlderThan = defaultOlderThan
	}
	if opts.OlderThan < time.Second {
		return nil, admin.Invalid("older_than", "%v would cancel ordinary statements: give 1s or more", opts.OlderThan)
	}
	nodes := db.members()
	reports := make([]CancelReport, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { reports[i] = db.cancelOn(ctx, n, opts) })
	}
	wg.Wait()
	return reports, nil
}

func (db *DB) cancelOn(ctx context.Context, n *node, opts CancelOptions) CancelReport {
	report := CancelReport{Node: n.name, Statements: []CancelledStatement{}}
	fail := func(what string, err error) CancelReport {
		db.opts.Logger.Warn("dbsplit: cancel-long-running: "+what, "db", db.opts.Name, "node", n.name, "error", err)
		report.Error = what
		return report
	}
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	conn, leave, err := db.visit(ctx, n)
	if err != nil {
		return fail(trouble(err), err)
	}
	defer leave()
	rows, err := conn.Query(ctx, longRunningSQL, opts.OlderThan, opts.Transactions)
	if err != nil {
		return fail("its sessions cannot be listed", err)
	}
	for rows.Next() {
		var s CancelledStatement
		if err := rows.Scan(&s.PID, &s.User, &s.Application, &s.State, &s.Started, &s.Seconds, &s.Query, &s.backendStart); err != nil {
			return fail("its sessions cannot be listed", err)
		}
		report.Statements = append(report.Statements, s)
	}
	if err := rows.Err(); err != nil {
		return fail("its sessions cannot be listed", err)
	}
	for i := range report.Statements {
		s := &report.Statements[i]
		if s.Result, err = cancelStatement(ctx, conn, s, opts); err != nil {
			return fail("the node stopped answering", err)
		}
	}
	if err := conn.QueryRow(ctx, hiddenSQL).Scan(&report.Hidden); err != nil {
		return fail("the node stopped answering", err)
	}
	return report
}

// nodeTimeout bounds what an operation asks of one node of several.
const nodeTimeout = 10 * time.Second

// cancelStatement cancels one statement. The server looks again at which session and statement the process
// serves, since its number may have been given to another one by now.
func cancelStatement(ctx context.Context, q querier, s *CancelledStatement, opts CancelOptions) (string, error) {
	if opts.DryRun {
		return "dry-run", nil
	}
	if s.State != "active" && !opts.Terminate {
		return "idle", nil
	}
	do, result := "pg_cancel_backend", "cancelled"
	if opts.Terminate {
		do, result = "pg_terminate_backend", "terminated"
	}
	var done bool
	err := q.QueryRow(ctx, `-- name: dbsplit_cancel
select coalesce((select `+do+`(pid) from pg_stat_activity where pid = $1 and backend_start = $2
	and case when $4 then coalesce(xact_start, query_start) else query_start end = $3), false)`,
		s.PID, s.backendStart, s.Started, opts.Transactions).Scan(&done)
	switch {
	case sqlState(err) == statePrivilege:
		return "refused", nil
	case err != nil:
		return "", err
	case !done:
		return "gone", nil
	}
	return result, nil
}
