package metrics

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// What a service of 50 routes exports by default, when each has answered well and badly once and a few have failed.
func TestDefaultSeriesAreFew(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	h := must(NewHTTP(reg, nil))
	mux := http.NewServeMux()
	for i := range 50 {
		mux.HandleFunc(fmt.Sprintf("GET /things/%d/{id}", i), func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.PathValue("id") == "bad":
				w.WriteHeader(http.StatusNotFound)
			case r.PathValue("id") == "broken":
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
	}
	handler := h.Middleware(mux)
	get := func(i int, id string) {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, fmt.Sprintf("/things/%d/%s", i, id), nil))
	}
	for i := range 50 {
		get(i, "1")
		get(i, "bad")
	}
	get(0, "broken")
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/elsewhere", nil))
	must(NewCapacity(reg, &CapacityOptions{Registerer: reg}))
	w := httptest.NewRecorder()
	Handler(reg).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	series, ours := 0, 0
	for lines := bufio.NewScanner(w.Body); lines.Scan(); {
		if line := lines.Text(); !strings.HasPrefix(line, "#") {
			series++
			if strings.HasPrefix(line, HTTPRequestDuration.Name) {
				ours++
			}
		}
	}
	t.Logf("%d series, %d of them of requests", series, ours)
	if series > 2000 || ours < 50*18 {
		t.Errorf("%d series, want at most 2000; %d of requests", series, ours)
	}
}
