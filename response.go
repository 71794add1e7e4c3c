package scaleaware

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// ResponseWriter runs a hook once, before anything of the final response leaves: headers, a body, a flush or a
// hijacked connection. It is what a middleware needs that puts the outcome of a request into a header. Informational
// responses (1xx, but not 101) pass by. http.ResponseController works through it, and io.Copy keeps the fast path of
// the writer below.
type ResponseWriter struct {
	below http.ResponseWriter
	hook  func() error
	once  sync.Once
	sent  atomic.Bool
	err   error
}

// BeforeResponse returns a writer that calls hook before the response to w begins. The hook sets headers on w; it
// runs on the goroutine that writes. When it returns an error it has answered on w itself: whatever the handler
// writes after that is dropped, and its writes return the error.
func BeforeResponse(w http.ResponseWriter, hook func() error) *ResponseWriter {
	return &ResponseWriter{below: w, hook: hook}
}

// Begin runs the hook if nothing did yet. Call it when the handler has returned: one that wrote nothing gets an
// answer too.
func (w *ResponseWriter) Begin() error {
	w.once.Do(func() {
		w.sent.Store(true)
		w.err = w.hook()
	})
	return w.err
}

// Begun reports whether the response has begun, so that headers come too late.
func (w *ResponseWriter) Begun() bool { return w.sent.Load() }

// Header returns the headers that will be sent.
func (w *ResponseWriter) Header() http.Header { return w.below.Header() }

// WriteHeader begins the response unless code is informational.
func (w *ResponseWriter) WriteHeader(code int) {
	informational := code >= 100 && code <= 199 && code != http.StatusSwitchingProtocols
	if informational && !w.Begun() || w.Begin() == nil {
		w.below.WriteHeader(code)
	}
}

// Write begins the response.
func (w *ResponseWriter) Write(p []byte) (int, error) {
	if err := w.Begin(); err != nil {
		return 0, err
	}
	return w.below.Write(p)
}

// WriteString begins the response.
func (w *ResponseWriter) WriteString(s string) (int, error) {
	if err := w.Begin(); err != nil {
		return 0, err
	}
	return io.WriteString(w.below, s)
}

// ReadFrom begins the response. It hands src to the writer below, which may be able to send a file without copying.
func (w *ResponseWriter) ReadFrom(src io.Reader) (int64, error) {
	if err := w.Begin(); err != nil {
		return 0, err
	}
	return io.Copy(w.below, src)
}

// Flush begins the response.
func (w *ResponseWriter) Flush() { _ = w.FlushError() }

// FlushError begins the response. It returns http.ErrNotSupported if the writer below cannot flush.
func (w *ResponseWriter) FlushError() error {
	if err := w.Begin(); err != nil {
		return err
	}
	return http.NewResponseController(w.below).Flush()
}

// Hijack runs the hook and takes over the connection. It returns http.ErrNotSupported if the writer below cannot.
func (w *ResponseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.Begin(); err != nil {
		return nil, nil, err
	}
	return http.NewResponseController(w.below).Hijack()
}

// Unwrap returns the writer below, for http.ResponseController.
func (w *ResponseWriter) Unwrap() http.ResponseWriter { return w.below }
