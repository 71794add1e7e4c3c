package metrics_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/metrics"
)

func TestWritesAreCountedByOperationAndOutcome(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	count, err := metrics.CountWrites(registry)
	if err != nil {
		t.Fatal(err)
	}
	const operator, viewer = "the-secret-of-an-operator", "the-secret-of-a-viewer-who-reads"
	h, err := admin.New([]admin.Operation{
		{Method: "POST", Path: "/a", ID: "a", Role: admin.Operator, Do: func(context.Context, *admin.Call) (any, error) { return nil, nil }},
		{Method: "POST", Path: "/b", ID: "b", Role: admin.Operator, Do: func(context.Context, *admin.Call) (any, error) { return nil, errors.New("broken") }},
	}, &admin.Options{Audit: count, Tokens: []admin.Token{
		{Name: "ops", Role: admin.Operator, Secret: operator}, {Name: "eyes", Role: admin.Viewer, Secret: viewer},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{"/a", operator}, {"/a", operator}, {"/a?dry_run=true", operator}, {"/a?what=1", operator}, {"/a", viewer}, {"/a", "nobodys-secret-of-nobody"}, {"/b", operator},
		{"/none", operator}, // no operation, so nothing to count: paths are as many as callers like
	} {
		r := httptest.NewRequest(http.MethodPost, c[0], nil)
		r.Header.Set("Authorization", "Bearer "+c[1])
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	h.Record(admin.Record{Operation: "readonly.trip", Status: http.StatusOK})
	want := "# HELP admin_writes_total " + metrics.AdminWrites.Help + `
# TYPE admin_writes_total counter
admin_writes_total{operation="a",outcome="done"} 2
admin_writes_total{operation="a",outcome="dry_run"} 1
admin_writes_total{operation="a",outcome="invalid"} 1
admin_writes_total{operation="a",outcome="refused"} 2
admin_writes_total{operation="b",outcome="failed"} 1
admin_writes_total{operation="readonly.trip",outcome="done"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), metrics.AdminWrites.Name); err != nil {
		t.Error(err)
	}
}
