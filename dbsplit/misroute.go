package dbsplit

import (
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
)

// unnamed is the operation of statements that have no name of their own.
const unnamed = "unnamed"

// misroutes counts, by their names, the statements sent through Read that tried to write: the list of what has to be sent
// through the DB instead.
type misroutes struct {
	name    string // the DB's
	counter *prometheus.CounterVec

	mu    sync.Mutex
	known map[string]struct{}
}

func (m *misroutes) count(operation string) {
	if operation == "" {
		operation = unnamed
	}
	m.mu.Lock()
	if _, ok := m.known[operation]; !ok && len(m.known) >= maxOperations {
		operation = "other"
	} else if !ok {
		operation = strings.Clone(operation)
		m.known[operation] = struct{}{}
	}
	m.mu.Unlock()
	m.counter.WithLabelValues(m.name, operation).Inc()
}

// misrouted counts a statement of Read that PostgreSQL has refused because it writes. Statements that the gate let go no
// further than a session for reads were sent where they belong.
func (t *tracer) misrouted(conn *pgx.Conn, sql string, err error) {
	st := stateOf(conn)
	if t.writes || st == nil || st.gated || sqlState(err) != stateReadOnly {
		return
	}
	st.misrouted = true
	otherwise := unnamed
	if sql == copying {
		sql, otherwise = "", copying
	}
	t.db.in.misroutes.count(metrics.OperationName(strings.TrimPrefix(sql, guard+";\n"), otherwise))
}

// copying stands for the SQL of COPY, which callers do not write.
const copying = "copy"
