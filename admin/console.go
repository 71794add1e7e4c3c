package admin

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// consoleTimeout bounds what the page waits for an operation.
const consoleTimeout = 2 * time.Second

// console serves the page at /. The page's script fetches /console/state, the same HTML that the first paint holds, so
// that there is one rendering and it works without the script.
type console struct {
	title     string
	handler   *Handler
	templates *template.Template
	reads     map[string]*route // GET operations without path parameters
	mounted   map[string]bool   // "POST /path"
	health    *health
}

func newConsole(title string, h *Handler, health *health) (*console, error) {
	templates, err := template.New("page").Funcs(template.FuncMap{"ago": ago}).ParseFS(pageFiles, "page/*.html")
	if err != nil {
		return nil, fmt.Errorf("admin: the console page: %w", err)
	}
	return &console{title: title, handler: h, templates: templates, reads: map[string]*route{}, mounted: map[string]bool{}, health: health}, nil
}

// operations are the page and its static files, which hold no data and need no token, and the form, whose request is
// guarded when it is made into the one that it stands for.
func (c *console) operations() []Operation {
	out := []Operation{
		{Method: http.MethodGet, Path: "/{$}", ID: "admin.console", Summary: "The console page. To callers who need a token and have none it shows no data.", Params: []Param{scopeParam},
			Handler: http.HandlerFunc(c.page)},
		{Method: http.MethodPost, Path: "/console/confirm", ID: "admin.console.submit", Role: Operator, Summary: "The console page's form, for browsers without its script.",
			Handler: http.HandlerFunc(c.submit), relays: true},
	}
	for _, name := range slices.Sorted(maps.Keys(assetTypes)) {
		out = append(out, Operation{Method: http.MethodGet, Path: "/" + name, ID: "admin.page." + name, Summary: "A part of the console page.",
			Handler: http.HandlerFunc(serveAsset)})
	}
	return out
}

func (c *console) guardedOperations() []Operation {
	return []Operation{
		{Method: http.MethodGet, Path: "/console/state", ID: "admin.console.state", Summary: "What the console page shows, as HTML.", Params: []Param{scopeParam}, Handler: http.HandlerFunc(c.state)},
		{Method: http.MethodGet, Path: "/console/charts", ID: "admin.console.charts", Summary: "The history that the console page draws.", Params: []Param{scopeParam}, Handler: http.HandlerFunc(c.charts)},
		{Method: http.MethodGet, Path: "/console/confirm", ID: "admin.console.confirm", Role: Operator, Summary: "The question before a change, for browsers without the console page's script.",
			Handler: http.HandlerFunc(c.confirm)},
	}
}

// prepare learns what is mounted.
func (c *console) prepare() {
	for _, rt := range c.handler.routes {
		c.mounted[rt.Method+" "+rt.Path] = true
		if rt.Method == http.MethodGet && rt.Do != nil {
			c.reads[rt.Path] = rt
		}
	}
}

func (c *console) page(w http.ResponseWriter, r *http.Request) {
	data := struct {
		Title  string
		Scopes []scopeLink
		State  *consoleView
	}{Title: c.title}
	scope := askedScope(r)
	if v, _ := r.Context().Value(visitKey{}).(*visit); v != nil && v.known {
		data.State = c.collect(r.Context(), v.id, scope, true)
		data.Scopes = c.links(scope, data.State.reported)
	} else {
		data.Scopes = c.links(scope, nil)
	}
	c.render(w, r, "page.html", http.StatusOK, data)
}

func (c *console) state(w http.ResponseWriter, r *http.Request) {
	v, _ := r.Context().Value(visitKey{}).(*visit)
	c.render(w, r, "state.html", http.StatusOK, c.collect(r.Context(), v.id, askedScope(r), false))
}

func (c *console) charts(w http.ResponseWriter, r *http.Request) {
	v, _ := r.Context().Value(visitKey{}).(*visit)
	var history *historyReply
	if err := c.ask(r.Context(), v.id, historyPath, askedScope(r), decodeInto(&history)); err != nil {
		writeProblem(w, asProblem(err))
		return
	}
	drawn := &charts{Charts: []*chart{}}
	if history != nil {
		drawn = newCharts(history)
	}
	data, err := encode(drawn)
	if err != nil {
		panic(err) // recovered, logged and answered as any operation's
	}
	newContent("application/json", data, gzip.BestSpeed).serve(w, r)
}

// pagePolicy lets nothing run but the page's own files, and lets those make no markup out of text.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

func (c *console) render(w http.ResponseWriter, r *http.Request, name string, status int, data any) {
	var buf bytes.Buffer
	if err := c.templates.ExecuteTemplate(&buf, name, data); err != nil {
		panic(err) // recovered, logged and answered as any operation's
	}
	header := w.Header()
	header.Set("Content-Security-Policy", pagePolicy)
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	// Another Accept-Encoding, or status, would need another answer to If-None-Match.
	if page := newContent("text/html; charset=utf-8", buf.Bytes(), gzip.BestSpeed); status == http.StatusOK {
		page.serve(w, r)
	} else {
		writeJSON(w, page.contentType, status, page.plain)
	}
}

// collect calls what is mounted and the caller may read, side by side. History goes with the first page; the script asks for it apart.
func (c *console) collect(ctx context.Context, id Identity, scope string, first bool) *consoleView {
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	var replies consoleReplies
	var group sync.WaitGroup
	ask := func(path string, into func([]byte) error) {
		group.Go(func() {
			if err := c.ask(ctx, id, path, scope, into); err != nil {
				replies.fail(path, err)
			}
		})
	}
	ask(dashboardPath, decodeInto(&replies.Dashboard))
	ask("/api/v1/performance/capacity/bottlenecks", decodeInto(&replies.Bottlenecks))
	ask("/api/v1/performance/jobs", decodeInto(&replies.Jobs))
	ask("/api/v1/performance/cache/hit-rate", decodeInto(&replies.Cache))
	ask("/api/v1/performance/sessions", decodeInto(&replies.Sessions))
	ask("/api/v1/performance/database/replication", decodeInto(&replies.Database))
	ask(readOnlyPath, decodeInto(&replies.ReadOnly))
	ask("/api/v1/admin/audit", decodeInto(&replies.Audit))
	ask("/api/v1/operations", decodeInto(&replies.Operations))
	if first {
		ask(historyPath, decodeInto(&replies.History))
	}
	group.Go(func() { replies.Health = c.health.ask(ctx, nil, true) })
	group.Wait()
	v := c.view(&replies, id)
	v.First, v.reported = first, replies.Dashboard
	return v
}

// ask calls a read, of a scope if it takes one, unless it is not mounted or not for this caller.
func (c *console) ask(ctx context.Context, id Identity, path, scope string, into func([]byte) error) error {
	rt := c.reads[path]
	if rt == nil || rt.Role == Operator && id.Role != Operator {
		return nil
	}
	query := url.Values{}
	if scope != "" && rt.takesScope() {
		query.Set(scopeParam.Name, scope)
	}
	data, err := rt.inProcess(ctx, id, query)
	if err != nil {
		return err
	}
	return into(data)
}

func decodeInto[T any](target **T) func([]byte) error {
	return func(data []byte) error {
		v := new(T)
		if err := json.Unmarshal(data, v); err != nil {
			return err
		}
		*target = v
		return nil
	}
}

// inProcess calls a read without a request from outside.
func (rt *route) inProcess(ctx context.Context, id Identity, query url.Values) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{value: p}
		}
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, (&url.URL{Path: rt.Path, RawQuery: query.Encode()}).String(), nil)
	if err != nil {
		return nil, err
	}
	reply, err := rt.Do(ctx, &Call{Actor: id.Name, Request: r, Background: rt.handler.background})
	if err != nil {
		return nil, err
	}
	return encode(reply)
}
