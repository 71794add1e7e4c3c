package main

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// reply is an answer as the functions of the profiles see it.
type reply struct {
	request *Request
	status  int
	body    []byte
	vars    map[string]any
}

// processor has the functions of processor.mjs, by the same names. An error fails the virtual user.
var processor = map[string]func(r reply, t *Tally) error{
	"failOnStatus":  failOnStatus,
	"countStale":    countStale,
	"countInstance": countInstance,
}

// staleReads is the counter of reads that did not see their user's own write.
const staleReads = "stale_reads"

func failOnStatus(r reply, _ *Tally) error {
	if r.status >= 400 {
		return fmt.Errorf("HTTP %d on %s", r.status, r.request.Name)
	}
	return nil
}

// countStale wants what the user has written, in that revision or in a later one of somebody else's.
func countStale(r reply, t *Tally) error {
	var lead struct {
		ID       string
		Revision float64
	}
	written, _ := r.vars["revision"].(float64)
	fresh := json.Unmarshal(r.body, &lead) == nil && lead.ID == r.vars["id"] && lead.Revision >= written
	if r.status == http.StatusNotFound || r.status == http.StatusOK && !fresh {
		t.Count(staleReads, 1)
	}
	return nil
}

func countInstance(r reply, t *Tally) error {
	var health struct{ Instance string }
	if json.Unmarshal(r.body, &health) == nil && health.Instance != "" {
		t.Count("instance."+health.Instance, 1)
	}
	return nil
}
