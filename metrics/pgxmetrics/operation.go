package pgxmetrics

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/metrics"
)

// Operations are the histograms of a database's operations, a bounded number of them.
type Operations struct {
	queries *prometheus.HistogramVec
	pool    string
	limit   int
	name    func(sql string) string

	mu    sync.Mutex                                     // for writing known
	known atomic.Pointer[map[string]prometheus.Observer] // never changed in place
}

// Of returns the histogram of a statement's operation, that of otherwise where the statement has no name, or nil for
// statements that only open or undo transactions. It allocates on the first use of a name only.
func (o *Operations) Of(sql, otherwise string) prometheus.Observer {
	name := ""
	if o.name != nil && sql != "" {
		name = o.name(sql)
	}
	if name == "" {
		name = metrics.OperationName(sql, otherwise)
	}
	if name == "" {
		return nil
	}
	if h, ok := (*o.known.Load())[name]; ok {
		return h
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	known := *o.known.Load()
	if len(known) >= o.limit {
		name = "other"
	}
	if h, ok := known[name]; ok {
		return h
	}
	name = strings.ToValidUTF8(strings.Clone(name), "?")
	h := o.queries.WithLabelValues(o.pool, name)
	grown := maps.Clone(known)
	grown[name] = h
	o.known.Store(&grown)
	return h
}
