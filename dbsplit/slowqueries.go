package dbsplit

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

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
	// Merged are the costliest statements over all nodes, by total time, but for those that NotMerged names. Windowed is set
	// when they ran since an earlier look, and not set when no node has one to compare with: then they are counted since each
	// node's statistics began.
	Merged   []SlowQuery `json:"merged"`
	Windowed bool        `json:"windowed"`
	// NotMerged are the nodes that are not in Merged.
	NotMerged []NotMerged `json:"not_merged,omitempty"`
	// Nodes are the same for each node.
	Nodes []NodeQueries `json:"nodes"`
}

// NotMerged is a node that is not in the merged statements.
type NotMerged struct {
	// Node is its host and port.
	Node string `json:"node"`
	// Reason says why, and what to do.
	Reason string `json:"reason"`
}

// NodeQueries are the costliest statements of one node: its statistics are its own.
type NodeQueries struct {
	Node string `json:"node"`
	// Since is where the window begins: at an earlier look, or when the statistics were reset after that. Windowed is false when
	// nobody looked earlier, and what is counted began with the statistics.
	Since    time.Time   `json:"since,omitzero"`
	Windowed bool        `json:"windowed"`
	Queries  []SlowQuery `json:"queries"`
	// Hidden counts statements of other roles whose text this role may not see: grant pg_read_all_stats.
	Hidden int `json:"hidden,omitempty"`
	// Unavailable says why there are none, and what to do.
	Unavailable string `json:"unavailable,omitempty"`

	all []SlowQuery
}

const slowMean = 100 // ms, the runbook's warning for query time

// SlowQueries reports the costliest statements of this database on each node and over all of them: what ran since an
// earlier look, at most window ago where there was one. Run looks every 2 minutes, and each call does; a day is kept, the
// older the coarser, and nothing from before this process began. At most limit are returned of each.
func (db *DB) SlowQueries(ctx context.Context, window time.Duration, limit int) (*SlowQueriesReport, error) {
	nodes := db.members()
	db.statements.only(nodes)
	report := &SlowQueriesReport{Nodes: make([]NodeQueries, len(nodes))}
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { report.Nodes[i] = db.queriesOn(ctx, n, window) })
	}
	wg.Wait()
	if !slices.ContainsFunc(report.Nodes, func(n NodeQueries) bool { return n.Unavailable == "" }) {
		return nil, admin.Unsupported("no node has the statistics: %s", report.Nodes[0].Unavailable)
	}
	report.merge(limit)
	for i := range report.Nodes {
		n := &report.Nodes[i]
		n.Queries = costliest(n.all, limit)
	}
	return report, nil
}

// merge adds up what the nodes have counted. What ran within a window and what ran ever are not added to each other.
func (r *SlowQueriesReport) merge(limit int) {
	r.Windowed = slices.ContainsFunc(r.Nodes, func(n NodeQueries) bool { return n.Windowed })
	merged := make(map[int64]*SlowQuery)
	for _, n := range r.Nodes {
		reason := n.Unavailable
		if reason == "" && n.Windowed != r.Windowed {
			reason = "there was no earlier look at this node to compare with, so it counts since its statistics began: call again later"
		}
		if reason != "" {
			r.NotMerged = append(r.NotMerged, NotMerged{n.Node, reason})
			continue
		}
		for _, q := range n.all {
			m := merged[q.ID]
			if m == nil {
				m = &SlowQuery{ID: q.ID, Query: q.Query}
				merged[q.ID] = m
			}
			m.Calls, m.Rows, m.TotalMS = m.Calls+q.Calls, m.Rows+q.Rows, m.TotalMS+q.TotalMS
			m.Nodes = append(m.Nodes, n.Node)
		}
	}
	for _, m := range merged {
		m.finish()
		r.Merged = append(r.Merged, *m)
	}
	r.Merged = costliest(r.Merged, limit)
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
		if out.Unavailable = noStatements(err); out.Unavailable == "" {
			out.Unavailable = trouble(err)
			db.opts.Logger.Warn("dbsplit: slow-queries", "db", db.opts.Name, "node", n.name, "error", err)
		}
		return out
	}
	now := statementSnapshot{at: time.Now(), reset: out.Since}
	for _, q := range out.all {
		now.counts = append(now.counts, statementCount{q.ID, q.Calls, q.Rows, q.TotalMS})
	}
	now.sort()
	switch base, ok := db.statements.since(n.name, now, window); {
	case ok && base.reset.Equal(now.reset):
		out.Since, out.Windowed = base.at, true
		out.subtract(base)
	case ok:
		// After a reset the statistics hold less than the window, and all of it; unless this is another server.
		out.Windowed = now.reset.After(base.at)
	}
	for i := range out.all {
		out.all[i].finish()
	}
	return out
}

// subtract leaves what was added since base. A smaller count than before means that the statistics began anew.
func (n *NodeQueries) subtract(base statementSnapshot) {
	n.all = slices.DeleteFunc(n.all, func(q SlowQuery) bool { return q.Calls == base.of(q.ID).calls })
	for i := range n.all {
		q := &n.all[i]
		if b := base.of(q.ID); q.Calls > b.calls {
			q.Calls, q.Rows, q.TotalMS = q.Calls-b.calls, q.Rows-b.rows, max(0, q.TotalMS-b.total)
		}
	}
}

// load reads the node's counts.
func (n *NodeQueries) load(ctx context.Context, q querier) error {
	in, reset, err := findStatements(ctx, q)
	if err != nil {
		return err
	}
	n.Since = reset
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
