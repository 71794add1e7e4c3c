package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scaleaware/scaleaware/admin"
)

// CountWrites returns what admin.Options.Audit takes to count the management listener's writes as [AdminWrites].
func CountWrites(reg prometheus.Registerer) (func(admin.Record), error) {
	writes, err := NewCounter(reg, AdminWrites)
	if err != nil {
		return nil, err
	}
	return func(r admin.Record) { writes.WithLabelValues(r.Operation, writeOutcome(r)).Inc() }, nil
}

func writeOutcome(r admin.Record) string {
	switch {
	case r.Status >= 500:
		return "failed"
	case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden, r.Status == http.StatusTooManyRequests:
		return "refused"
	case r.Status >= 400:
		return "invalid"
	case r.DryRun:
		return "dry_run"
	default:
		return "done"
	}
}
