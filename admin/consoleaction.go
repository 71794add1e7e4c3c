package admin

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	readOnlyPath = "/api/v1/admin/read-only-mode"
	incidentPath = "/api/v1/admin/incident"
	jobsPath     = "/api/v1/performance/jobs/"
)

// actionKind is a change that the page offers where its operation is mounted and the caller may use it.
type actionKind struct {
	id, label, method, path string // {queue} in path stands for the action's name
	title, text             string // {name} stands for it too
	field                   string // of the body, asked for in the dialog
	danger                  bool
}

var actionKinds = []actionKind{
	{id: "read-only-on", label: "Read-only mode…", method: http.MethodPost, path: readOnlyPath, field: "reason", danger: true,
		title: "Turn read-only mode on?", text: "Every instance refuses writes until it is turned off. Reads go on."},
	{id: "read-only-off", label: "Allow writes again…", method: http.MethodDelete, path: readOnlyPath,
		title: "Allow writes again?", text: "Every instance takes writes again at once."},
	{id: "incident-on", label: "Declare incident…", method: http.MethodPost, path: incidentPath, field: "reason", danger: true,
		title: "Declare a high load incident?", text: "Read-only mode and every relief step at once. Ending the incident undoes all of them."},
	{id: "incident-off", label: "End incident…", method: http.MethodDelete, path: incidentPath,
		title: "End the incident?", text: "Undoes every relief step and allows writes again."},
	{id: "pause", label: "Pause", method: http.MethodPost, path: jobsPath + "{queue}/pause", danger: true,
		title: "Pause the queue {name}?", text: "Its jobs stay and wait; those that run end."},
	{id: "resume", label: "Resume", method: http.MethodPost, path: jobsPath + "{queue}/resume",
		title: "Resume the queue {name}?", text: "Its workers take jobs again at once."},
	{id: "retry-failed", label: "Retry failed", method: http.MethodPost, path: jobsPath + "{queue}/retry-failed",
		title: "Retry the failed jobs of {name}?", text: "All of them are enqueued again."},
}

// action is a button that leads to a confirmation, and from there to one request. Path has no leading slash: the page
// may be mounted under a prefix.
type action struct {
	ID, Kind, Name, Label, Method, Path, Title, Text string
	Field                                            string
	Danger                                           bool
}

// Verb is the label on the button that does it.
func (a *action) Verb() string { return strings.TrimSuffix(a.Label, "…") }

// action returns what the caller may do, or nil.
func (c *console) action(id Identity, kind, name string) *action {
	i := slices.IndexFunc(actionKinds, func(k actionKind) bool { return k.id == kind })
	if i < 0 || id.Role != Operator || !c.mounted[actionKinds[i].method+" "+actionKinds[i].path] {
		return nil
	}
	k := actionKinds[i]
	if strings.Contains(k.path, "{queue}") == (name == "") {
		return nil
	}
	out := &action{
		ID: kind, Kind: kind, Name: name, Label: k.label, Method: k.method, Field: k.field, Danger: k.danger,
		Path:  strings.Replace(strings.TrimPrefix(k.path, "/"), "{queue}", url.PathEscape(name), 1),
		Title: strings.Replace(k.title, "{name}", name, 1), Text: k.text,
	}
	if name != "" {
		out.ID += "-" + name
	}
	return out
}

// offer lists those of the kinds that the caller may use.
func (c *console) offer(id Identity, name string, kinds ...string) []action {
	var out []action
	for _, kind := range kinds {
		if a := c.action(id, kind, name); a != nil {
			out = append(out, *a)
		}
	}
	return out
}
