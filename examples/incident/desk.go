package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

// deskClient has a timeout above that of any operation.
var deskClient = &http.Client{Timeout: time.Minute}

// desk is where the operator sits: the management listener.
type desk struct{ address string }

func (d desk) call(ctx context.Context, method, path, body string, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, d.address+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := deskClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s %s", method, path, resp.Status, text)
	}
	return json.Unmarshal(text, into)
}

// board is as much of the dashboard as the story needs.
type board struct {
	Alerts []struct {
		Labels           map[string]string
		State            string
		Value, Threshold float64
		Why              *struct{ Text string }
	}
}

func (d desk) dashboard(ctx context.Context) (r board, err error) {
	return r, d.call(ctx, http.MethodGet, "/api/v1/performance/capacity/dashboard", "", &r)
}

// bottlenecks are the resources, the scarcest first.
type bottlenecks struct {
	Resources []struct {
		Title       string
		Utilization *float64
		Evidence    []string
		Step        string
	}
}

func (d desk) bottlenecks(ctx context.Context) (r bottlenecks, err error) {
	return r, d.call(ctx, http.MethodGet, "/api/v1/performance/capacity/bottlenecks", "", &r)
}

func (d desk) readOnly(ctx context.Context) (r readonly.Report, err error) {
	return r, d.call(ctx, http.MethodGet, "/api/v1/admin/read-only-mode", "", &r)
}

func (d desk) begin(ctx context.Context, reason string) (r readonly.IncidentReport, err error) {
	body, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		return r, err
	}
	return r, d.call(ctx, http.MethodPost, "/api/v1/admin/incident", string(body), &r)
}

func (d desk) end(ctx context.Context) (r readonly.IncidentReport, err error) {
	return r, d.call(ctx, http.MethodDelete, "/api/v1/admin/incident", "", &r)
}

func (d desk) waiting(ctx context.Context, queue string) (int, error) {
	var q struct {
		Waiting int `json:"waiting"`
	}
	err := d.call(ctx, http.MethodGet, "/api/v1/performance/jobs/"+queue, "", &q)
	return q.Waiting, err
}
