package dbsplit

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// statementInterval is how often Run counts. A server with as many statements as it counts at most, 5000 by default, needs
	// about 20 ms for it: the texts, most of what there is to read, are left out, and no connection is opened. A fleet of 50
	// processes so takes 1 % of one of its cores at the very most.
	statementInterval      = 2 * time.Minute
	leastStatementInterval = time.Minute
	// keptStatements and statementsFor bound what is kept of each node. A snapshot is 32 bytes a statement.
	keptStatements = 24
	statementsFor  = 24 * time.Hour
)

// statementHistory keeps earlier counts of each node, to report differences without ever resetting the server's: of the last
// day, and the older they are, the fewer.
type statementHistory struct {
	mu    sync.Mutex
	nodes map[string][]statementSnapshot // oldest first
}

type statementSnapshot struct {
	at     time.Time
	reset  time.Time        // of the server's statistics, by its clock
	counts []statementCount // in the order of id
}

type statementCount struct {
	id          int64
	calls, rows int64
	total       float64
}

// of returns the counts of one statement; zero when it was not there.
func (s statementSnapshot) of(id int64) statementCount {
	i, ok := slices.BinarySearchFunc(s.counts, id, func(c statementCount, id int64) int { return cmp.Compare(c.id, id) })
	if !ok {
		return statementCount{}
	}
	return s.counts[i]
}

func (s statementSnapshot) sort() {
	slices.SortFunc(s.counts, func(a, b statementCount) int { return cmp.Compare(a.id, b.id) })
}

// since returns the oldest kept snapshot of a node that is not older than window, or else the newest, and keeps the present
// one. It reports whether there was one.
func (h *statementHistory) since(node string, now statementSnapshot, window time.Duration) (base statementSnapshot, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	kept := h.nodes[node]
	if i := slices.IndexFunc(kept, func(s statementSnapshot) bool { return now.at.Sub(s.at) <= window }); i >= 0 {
		base, ok = kept[i], true
	} else if len(kept) > 0 {
		base, ok = kept[len(kept)-1], true
	}
	if len(kept) > 0 && now.at.Sub(kept[len(kept)-1].at) < leastStatementInterval {
		return base, ok
	}
	kept = slices.DeleteFunc(append(kept, now), func(s statementSnapshot) bool { return now.at.Sub(s.at) > statementsFor })
	if len(kept) > keptStatements {
		i := leastMissed(len(kept), func(i int) time.Time { return kept[i].at }, now.at)
		kept = slices.Delete(kept, i, i+1)
	}
	if h.nodes == nil {
		h.nodes = make(map[string][]statementSnapshot)
	}
	h.nodes[node] = kept
	return base, ok
}

// only forgets the nodes that were removed.
func (h *statementHistory) only(nodes []*node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.nodes {
		if !slices.ContainsFunc(nodes, func(n *node) bool { return n.name == name }) {
			delete(h.nodes, name)
		}
	}
}

// watchStatements counts until ctx ends, so that SlowQueries has something to compare with.
func (db *DB) watchStatements(ctx context.Context) {
	for {
		var wg sync.WaitGroup
		nodes := db.members()
		db.statements.only(nodes)
		for _, n := range nodes {
			wg.Go(func() { db.sampleStatements(ctx, n) })
		}
		wg.Wait()
		timer := time.NewTimer(statementInterval * time.Duration(90+rand.IntN(21)) / 100) // a fleet that was started at once
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (db *DB) sampleStatements(ctx context.Context, n *node) {
	db.measureBy(ctx, n, "statements", func(ctx context.Context, c guarded) error {
		s, err := countStatements(ctx, c)
		switch {
		case err == nil:
			db.statements.since(n.name, s, 0)
		case noStatements(err) != "":
			return nil // SlowQueries says so when it is asked
		}
		return err
	})
}

// countStatements reads what load does without the texts, which live in a file.
func countStatements(ctx context.Context, q querier) (s statementSnapshot, err error) {
	in, reset, err := findStatements(ctx, q)
	if err != nil {
		return s, err
	}
	s.reset = reset
	rows, err := q.Query(ctx, `-- name: dbsplit_count_statements
select queryid, sum(calls)::bigint, sum(rows)::bigint, sum(total_exec_time)::float8
from `+in+`.pg_stat_statements(false)
where dbid = (select oid from pg_database where datname = current_database()) and queryid is not null
group by 1`)
	if err != nil {
		return s, err
	}
	var c statementCount
	_, err = pgx.ForEachRow(rows, []any{&c.id, &c.calls, &c.rows, &c.total}, func() error {
		s.counts = append(s.counts, c)
		return nil
	})
	s.sort()
	s.at = time.Now()
	return s, err
}

var errNoStatements = errors.New("the extension pg_stat_statements is missing in this database: add it to shared_preload_libraries, restart, and run CREATE EXTENSION pg_stat_statements on the primary")

var errOldStatements = errors.New("the extension pg_stat_statements is of a version before 1.9: run ALTER EXTENSION pg_stat_statements UPDATE on the primary")

// noStatements says what has to be done before a server counts statements; empty when err has another reason.
func noStatements(err error) string {
	switch {
	case errors.Is(err, errNoStatements), errors.Is(err, errOldStatements):
		return err.Error()
	case sqlState(err) == stateNotInPrerequisite:
		return "pg_stat_statements is not loaded: add it to shared_preload_libraries and restart this server"
	default:
		return ""
	}
}

// findStatements returns the schema that the extension is in, which may be any, and when its statistics began.
func findStatements(ctx context.Context, q querier) (in string, reset time.Time, err error) {
	var schema string
	var major, minor int
	err = q.QueryRow(ctx, "-- name: dbsplit_statements_schema\nselect n.nspname, split_part(e.extversion, '.', 1)::int, split_part(e.extversion, '.', 2)::int from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_stat_statements'").Scan(&schema, &major, &minor)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", reset, errNoStatements
	}
	if err != nil {
		return "", reset, err
	}
	if major == 1 && minor < 9 { // a cluster keeps its extensions' versions when it is upgraded
		return "", reset, errOldStatements
	}
	in = pgx.Identifier{schema}.Sanitize()
	err = q.QueryRow(ctx, "-- name: dbsplit_statements_since\nselect stats_reset from "+in+".pg_stat_statements_info").Scan(&reset)
	return in, reset, err
}
