package admin

import (
	"net/http"
	"slices"
)

const dashboardPath = "/api/v1/performance/capacity/dashboard"

// scopes are what the page can be about, where the reports know the difference.
var scopes = []string{"instance", "fleet"}

var scopeLabels = map[string]string{"instance": "This instance", "fleet": "Fleet"}

var scopeParam = Param{Name: "scope", In: "query", Type: "string", Description: "instance or fleet; left out, or anything else, what the reports are about by themselves."}

// askedScope is what a request wants the page to be about, or "".
func askedScope(r *http.Request) string {
	if scope := r.URL.Query().Get(scopeParam.Name); slices.Contains(scopes, scope) {
		return scope
	}
	return ""
}

// takesScope says whether a read can be asked for a scope.
func (rt *route) takesScope() bool {
	return rt != nil && slices.ContainsFunc(rt.Params, func(p Param) bool { return p.Name == scopeParam.Name && p.In == "query" })
}

type scopeLink struct {
	Scope, Label string
	Current      bool
}

// links are the page's switch between scopes. Where nothing was asked for and the report is about one instance, that is all
// that there is, and no switch.
func (c *console) links(asked string, d *dashboardReply) (links []scopeLink) {
	shown := asked
	if d != nil && asked == "" {
		shown = d.Scope
	}
	if !c.reads[dashboardPath].takesScope() || asked == "" && shown != "fleet" {
		return nil
	}
	for _, scope := range scopes {
		links = append(links, scopeLink{scope, scopeLabels[scope], scope == shown})
	}
	return links
}
