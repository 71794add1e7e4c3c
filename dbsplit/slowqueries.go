package dbsplit

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/admin"
)

// SlowQuery is one statement's cost within the window, over one node or all.
type SlowQuery struct {
	// ID is pg_stat_statements' queryid: the same on a primary and its replicas.
	ID int64 `json:"id"`
	// Query is the normalised text: constants are replaced by parameters.
	Query string `json:"query"`
	Calls int64  `json:"calls"`
	Rows  int64  `json:"rows"`
	// TotalMS and MeanMS are execution time in milliseconds.
	TotalMS float64 `json:"total_ms"`
	MeanMS  float64 `json:"mean_ms"`
	// Slow is set when the mean is above the runbook's warning of 100 ms.
	Slow bool `json:"slow"`
	// Nodes are where it ran.
	Nodes []string `json:"nodes,omitempty"`
}

// SlowQueriesReport merges the statements of all nodes.
type SlowQueriesReport struct {
	// Merged are the costliest statements over all nodes, by total time.
	Merged []SlowQuery `json:"merged"`
	// Nodes are the same for each node.
	Nodes []NodeQueries `json:"nodes"`
}

// NodeQueries are the costliest statements of one node: its statistics are its own.
type NodeQueries struct {
	Node string `json:"node"`
	// Since is where the window begins. Windowed is false on the first call, which has nothing to compare with and
	// counts since the statistics began.
	Since    time.Time   `json:"since,omitzero"`
	Windowed bool        `json:"windowed"`
	Queries  []SlowQuery `json:"queries"`
	// Hidden counts statements of other roles whose text this role may not see: grant pg_read_all_stats.
	Hidden int `json:"hidden,omitempty"`
	// Unavailable says why there are none, and what to do.
	Unavailable string `json:"unavailable,omitempty"`

	all []SlowQuery
}

const (
	slowMean         = 100 // ms, the runbook's warning for query time
	keptSnapshots    = 6
	snapshotInterval = 2 * time.Minute
)

// statementHistory keeps earlier counts, to report differences without ever resetting the server's.
type statementHistory struct {
	mu    sync.Mutex
	nodes map[string][]statementSnapshot // oldest first
}

type statementSnapshot struct {
	at     time.Time
	reset  time.Time // of the server's statistics, by its clock
	counts map[int64]statementCount
}

type statementCount struct {
	calls, rows int64
	total       float64
}

// since returns the oldest kept snapshot of a node that is not older than window, and keeps the present one.
func (h *statementHistory) since(node string, now statementSnapshot, window time.Duration) (statementSnapshot, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := h.nodes[node]
	i := slices.IndexFunc(kept, func(s statementSnapshot) bool { return now.at.Sub(s.at) <= window })
	var base statementSnapshot
	switch {
	case i >= 0:
		base = kept[i]
	case len(kept) > 0:
		base = kept[len(kept)-1]
	}
	if len(kept) == 0 || now.at.Sub(kept[len(kept)-1].at) >= snapshotInterval {
		kept = append(kept, now)
		if len(kept) > keptSnapshots {
			kept = slices.Delete(kept, 0, 1)
		}
		if h.nodes == nil {
			h.nodes = make(map[string][]statementSnapshot)
		}
		h.nodes[node] = kept
	}
	return base, base.counts != nil
}

// SlowQueries reports the costliest statements of this database on each node and over all of them: what ran since an
// earlier call, at most window ago where there was one. At most limit are returned of each.
func (db *DB) SlowQueries(ctx context.Context, window time.Duration, limit int) (*SlowQueriesReport, error) {
	nodes := db.members()
	report := &SlowQueriesReport{Nodes: make([]NodeQueries, len(nodes)), Merged: []SlowQuery{}}
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { report.Nodes[i] = db.queriesOn(ctx, n, window) })
	}
	wg.Wait()
	merged := make(map[int64]*SlowQuery)
	answered := false
	for i := range report.Nodes {
		n := &report.Nodes[i]
		answered = answered || n.Unavailable == ""
		for _, q := range n.all {
			m := merged[q.ID]
			if m == nil {
				m = &SlowQuery{ID: q.ID, Query: q.Query}
				merged[q.ID] = m
			}
			m.Calls, m.Rows, m.TotalMS = m.Calls+q.Calls, m.Rows+q.Rows, m.TotalMS+q.TotalMS
			m.Nodes = append(m.Nodes, n.Node)
		}
		n.Queries = costliest(n.all, limit)
	}
	if !answered {
		return nil, admin.Unsupported("no node has the statistics: %s", report.Nodes[0].Unavailable)
	}
	for _, m := range merged {
		m.finish()
		report.Merged = append(report.Merged, *m)
	}
	report.Merged = costliest(report.Merged, limit)
	return report, nil
}

func (q *SlowQuery) finish() {
	q.MeanMS = q.TotalMS / float64(max(1, q.Calls))
	q.Slow = q.MeanMS > slowMean
}

func costliest(all []SlowQuery, limit int) []SlowQuery {
	slices.SortFunc(all, func(a, b SlowQuery) int {
		return cmp.Or(cmp.Compare(b.TotalMS, a.TotalMS), cmp.Compare(a.ID, b.ID))
	})
	return append([]SlowQuery{}, all[:min(max(limit, 0), len(all))]...)
}

var errNoStatements = errors.New("the extension pg_stat_statements is missing in this database: add it to shared_preload_libraries, restart, and run CREATE EXTENSION pg_stat_statements on the primary")

var errOldStatements = errors.New("the extension pg_stat_statements is of a version before 1.9: run ALTER EXTENSION pg_stat_statements UPDATE on the primary")

func (db *DB) queriesOn(ctx context.Context, n *node, window time.Duration) NodeQueries {
	out := NodeQueries{Node: n.name}
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	conn, leave, err := db.visit(ctx, n)
	if err == nil {
		defer leave()
		err = out.load(ctx, conn)
	}
	if err != nil {
		out.all = nil
		switch {
		case errors.Is(err, errNoStatements), errors.Is(err, errOldStatements):
			out.Unavailable = err.Error()
		case sqlState(err) == stateNotInPrerequisite:
			out.Unavailable = "pg_stat_statements is not loaded: add it to shared_preload_libraries and restart this server"
		default:
			out.Unavailable = trouble(err)
			db.opts.Logger.Warn("dbsplit: slow-queries", "db", db.opts.Name, "node", n.name, "error", err)
		}
		return out
	}
	now := statementSnapshot{at: time.Now(), reset: out.Since, counts: make(map[int64]statementCount, len(out.all))}
	for _, q := range out.all {
		now.counts[q.ID] = statementCount{q.Calls, q.Rows, q.TotalMS}
	}
	// After a reset the statistics hold less than the window, and all of it.
	if base, ok := db.statements.since(n.name, now, window); ok && base.reset.Equal(now.reset) {
		out.Since, out.Windowed = base.at, true
		out.subtract(base.counts)
	}
	for i := range out.all {
		out.all[i].finish()
	}
	return out
}

// subtract leaves what was added since base. A smaller count than before means that the statistics began anew.
func (n *NodeQueries) subtract(base map[int64]statementCount) {
	n.all = slices.DeleteFunc(n.all, func(q SlowQuery) bool { return q.Calls == base[q.ID].calls })
	for i := range n.all {
		q := &n.all[i]
		if b := base[q.ID]; q.Calls > b.calls {
			q.Calls, q.Rows, q.TotalMS = q.Calls-b.calls, q.Rows-b.rows, max(0, q.TotalMS-b.total)
		}
	}
}

// load reads the node's counts. The extension may live in any schema.
func (n *NodeQueries) load(ctx context.Context, q querier) error {
	var schema string
	var major, minor int
	err := q.QueryRow(ctx, "-- name: dbsplit_statements_schema\nselect n.nspname, split_part(e.extversion, '.', 1)::int, split_part(e.extversion, '.', 2)::int from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_stat_statements'").Scan(&schema, &major, &minor)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNoStatements
	}
	if err != nil {
		return err
	}
	if major == 1 && minor < 9 { // a cluster keeps its extensions' versions when it is upgraded
		return errOldStatements
	}
	in := pgx.Identifier{schema}.Sanitize()
	if err := q.QueryRow(ctx, "-- name: dbsplit_statements_since\nselect stats_reset from "+in+".pg_stat_statements_info").Scan(&n.Since); err != nil {
		return err
	}
	rows, err := q.Query(ctx, `-- name: dbsplit_statements
select coalesce(queryid, 0), min(query), sum(calls)::bigint, sum(rows)::bigint, sum(total_exec_time)::float8, count(*)
from `+in+`.pg_stat_statements
where dbid = (select oid from pg_database where datname = current_database())
group by 1`)
	if err != nil {
		return err
	}
	for rows.Next() {
		var s SlowQuery
		var statements int
		if err := rows.Scan(&s.ID, &s.Query, &s.Calls, &s.Rows, &s.TotalMS, &statements); err != nil {
			return err
		}
		if s.ID == 0 {
			n.Hidden = statements
			continue
		}
		n.all = append(n.all, s)
	}
	return rows.Err()
}
