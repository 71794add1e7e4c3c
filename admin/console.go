package admin

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"sync"
	"time"
)

//go:embed page
var pageFiles embed.FS

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

// operations are the page and its static files, which hold no data and need no token.
func (c *console) operations() []Operation {
	asset := func(name, contentType string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			data, err := pageFiles.ReadFile("page/" + name)
			if err != nil {
				panic(err)
			}
			writeJSON(w, contentType, http.StatusOK, data)
		}
	}
	return []Operation{
		{Method: http.MethodGet, Path: "/{$}", ID: "admin.console", Summary: "The console page. To callers who need a token and have none it shows no data.",
			Handler: http.HandlerFunc(c.page)},
		{Method: http.MethodGet, Path: "/console.css", ID: "admin.console.css", Summary: "The console page's style.", Handler: asset("console.css", "text/css; charset=utf-8")},
		{Method: http.MethodGet, Path: "/console.js", ID: "admin.console.js", Summary: "The console page's script.", Handler: asset("console.js", "text/javascript; charset=utf-8")},
	}
}

func (c *console) guardedOperations() []Operation {
	return []Operation{{
		Method: http.MethodGet, Path: "/console/state", ID: "admin.console.state", Summary: "What the console page shows, as HTML.", Handler: http.HandlerFunc(c.state),
	}}
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
		Title string
		State *consoleView
	}{Title: c.title}
	if v, _ := r.Context().Value(visitKey{}).(*visit); v != nil && v.known {
		data.State = c.collect(r.Context(), v.id)
	}
	c.render(w, "page.html", data)
}

func (c *console) state(w http.ResponseWriter, r *http.Request) {
	v, _ := r.Context().Value(visitKey{}).(*visit)
	c.render(w, "state.html", c.collect(r.Context(), v.id))
}

func (c *console) render(w http.ResponseWriter, name string, data any) {
	var buf bytes.Buffer
	if err := c.templates.ExecuteTemplate(&buf, name, data); err != nil {
		panic(err) // recovered, logged and answered as any operation's
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Length", strconv.Itoa(buf.Len()))
	header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	_, _ = w.Write(buf.Bytes()) // the client left: nobody to tell
}

// collect calls what is mounted and the caller may read, side by side.
func (c *console) collect(ctx context.Context, id Identity) *consoleView {
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	var replies consoleReplies
	var group sync.WaitGroup
	ask := func(path string, into func([]byte) error) {
		rt := c.reads[path]
		if rt == nil || rt.Role == Operator && id.Role != Operator {
			return
		}
		group.Go(func() {
			data, err := rt.inProcess(ctx, id)
			if err == nil {
				err = into(data)
			}
			if err != nil {
				replies.fail(path, err)
			}
		})
	}
	ask("/api/v1/performance/capacity/dashboard", decodeInto(&replies.Dashboard))
	ask("/api/v1/performance/capacity/bottlenecks", decodeInto(&replies.Bottlenecks))
	ask("/api/v1/performance/jobs", decodeInto(&replies.Jobs))
	ask("/api/v1/performance/cache/hit-rate", decodeInto(&replies.Cache))
	ask("/api/v1/performance/database/replication", decodeInto(&replies.Database))
	ask(readOnlyPath, decodeInto(&replies.ReadOnly))
	ask("/api/v1/admin/audit", decodeInto(&replies.Audit))
	ask("/api/v1/operations", decodeInto(&replies.Operations))
	group.Go(func() { replies.Health = c.health.ask(ctx, nil, true) })
	group.Wait()
	return c.view(&replies, id)
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
func (rt *route) inProcess(ctx context.Context, id Identity) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{value: p}
		}
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, rt.Path, nil)
	if err != nil {
		return nil, err
	}
	reply, err := rt.Do(ctx, &Call{Actor: id.Name, Request: r, Background: rt.handler.background})
	if err != nil {
		return nil, err
	}
	return encode(reply)
}
