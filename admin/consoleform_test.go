package admin_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/admin"
)

type paused struct {
	queue, reason string
	dry           bool
}

// formSite has a switch that asks for a reason and queues that can be paused; done gets what was done.
func formSite(t *testing.T, records *[]admin.Record) (h *admin.Handler, done *[]paused) {
	done = &[]paused{}
	type body struct {
		Reason string `json:"reason"`
	}
	write := func(method, path, id string) admin.Operation {
		return admin.Operation{Method: method, Path: path, ID: id, Role: admin.Operator, Body: body{}, Do: func(_ context.Context, call *admin.Call) (any, error) {
			if call.Path("queue") == "gone" {
				return nil, admin.NotFound("there is no such queue")
			}
			*done = append(*done, paused{call.Path("queue"), admin.Body[body](call).Reason, call.DryRun})
			return nil, nil
		}}
	}
	h = mount(t, &admin.Options{Tokens: tokens(), Audit: func(r admin.Record) { *records = append(*records, r) }},
		write("POST", "/api/v1/performance/jobs/{queue}/pause", "jobs.pause"), write("POST", "/api/v1/admin/read-only-mode", "mode.on"))
	return h, done
}

func form(target string, values url.Values, change ...func(*http.Request)) *http.Request {
	return request("POST", target, values.Encode(), append([]func(*http.Request){header("Content-Type", "application/x-www-form-urlencoded")}, change...)...)
}

// The form is the operation: same guard, same input, one record, under the operation's own name.
func TestFormIsTheOperation(t *testing.T) {
	var records []admin.Record
	h, done := formSite(t, &records)
	operator := bearing(operatorSecret)
	hostile := `low/priority "<b>` + "é"
	for _, c := range []struct {
		target string
		values url.Values
		want   paused
	}{
		{"/console/confirm", url.Values{"do": {"pause"}, "name": {hostile}, "reason": {"is not asked for"}}, paused{queue: hostile}},
		{"/console/confirm?dry_run=true", url.Values{"do": {"pause"}, "name": {"q"}}, paused{queue: "q", dry: true}},
		{"/console/confirm", url.Values{"do": {"read-only-on"}, "reason": {` "load" `}}, paused{reason: `"load"`}},
	} {
		*done, records = nil, nil
		w := serve(h, form(c.target, c.values, operator))
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "../" {
			t.Fatalf("%v: %d to %q: %s", c.values, w.Code, w.Header().Get("Location"), w.Body)
		}
		if len(*done) != 1 || (*done)[0] != c.want {
			t.Errorf("%v did %+v", c.values, *done)
		}
		if len(records) != 1 || records[0].Actor != "ops" || records[0].Status != 200 || strings.HasPrefix(records[0].Operation, "admin.") || records[0].DryRun != c.want.dry {
			t.Errorf("%v left the records %+v", c.values, records)
		}
	}
}

func TestFormIsGuarded(t *testing.T) {
	var records []admin.Record
	h, done := formSite(t, &records)
	pause := url.Values{"do": {"pause"}, "name": {"q"}}
	for name, c := range map[string]struct {
		request  *http.Request
		status   int
		recorded int
	}{
		"a stranger":             {form("/console/confirm", pause), 401, 1},
		"a viewer":               {form("/console/confirm", pause, bearing(viewerSecret)), 403, 1},
		"another site's page":    {form("/console/confirm", pause, bearing(operatorSecret), header("Sec-Fetch-Site", "cross-site")), 403, 1},
		"an old browser's":       {form("/console/confirm", pause, bearing(operatorSecret), header("Origin", "https://elsewhere.example")), 403, 1},
		"an operation's refusal": {form("/console/confirm", url.Values{"do": {"pause"}, "name": {"gone"}}, bearing(operatorSecret)), 404, 1},
		"a wrong query":          {form("/console/confirm?x=1", pause, bearing(operatorSecret)), 400, 1},
		"a path that climbs":     {form("/console/confirm", url.Values{"do": {"pause"}, "name": {".."}}, bearing(operatorSecret)), 400, 0},
		"nothing of this name":   {form("/console/confirm", url.Values{"do": {"explode"}}, bearing(operatorSecret)), 404, 0},
		"what is not mounted":    {form("/console/confirm", url.Values{"do": {"resume"}, "name": {"q"}}, bearing(operatorSecret)), 404, 0},
		"no name":                {form("/console/confirm", url.Values{"do": {"pause"}}, bearing(operatorSecret)), 404, 0},
		"a long form":            {form("/console/confirm", url.Values{"do": {"pause"}, "name": {strings.Repeat("x", 1<<15)}}, bearing(operatorSecret)), 413, 0},
		"JSON":                   {request("POST", "/console/confirm", `{"do":"pause"}`, bearing(operatorSecret), header("Content-Type", "application/json")), 415, 0},
	} {
		records = nil
		w := serve(h, c.request)
		if w.Code != c.status || len(*done) > 0 {
			t.Errorf("%s: %d, did %v: %s", name, w.Code, *done, w.Body)
		}
		if len(records) != c.recorded {
			t.Errorf("%s: %d records", name, len(records))
		}
	}
}

// The question names what it is about as text, and nothing happens by asking.
func TestQuestionBeforeAChange(t *testing.T) {
	var records []admin.Record
	h, done := formSite(t, &records)
	w := serve(h, request("GET", "/console/confirm?do=pause&name="+url.QueryEscape(attack), "", bearing(operatorSecret)))
	if page := w.Body.String(); w.Code != 200 || strings.Contains(page, "<img") || !strings.Contains(page, "Pause the queue &lt;img") || len(*done) > 0 {
		t.Errorf("%d %v %s", w.Code, *done, w.Body)
	}
	balanced(t, "the question", w.Body.String())
	wantProblem(t, serve(h, request("GET", "/console/confirm?do=pause&name=q", "", bearing(viewerSecret))), 403)
	if w := serve(h, request("GET", "/console/confirm?do=nothing", "", bearing(operatorSecret))); !strings.Contains(w.Body.String(), "nothing of this name") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
