package admin

import "net/http"

// console serves the page at /.
type console struct {
	title   string
	handler *Handler
}

func (c *console) operations() []Operation {
	return []Operation{{
		Method: http.MethodGet, Path: "/{$}", ID: "admin.console", Summary: "The console page.", Handler: http.HandlerFunc(c.page),
	}}
}

func (c *console) prepare() {}

func (c *console) page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte("<!doctype html><title>operations</title>"))
}
