package metrics

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// exchange is one request being served. It is the response writer that the handler gets, in one of four forms, so
// that a type assertion to http.Flusher or http.Hijacker answers as it would without us. It serves no second request:
// whoever holds it longer than it should would reach the next client with it.
type exchange struct {
	http.ResponseWriter
	active   prometheus.Gauge
	start    time.Time
	took     time.Duration // until hijacked
	entry    string        // the pattern of a mux around us
	path     string
	place    place
	code     int
	hijacked bool
	returned bool
	flushing flushing
	hijacker hijacker
	full     full
}

func newExchange(active prometheus.Gauge, w http.ResponseWriter, r *http.Request) *exchange {
	e := &exchange{active: active, ResponseWriter: w, entry: r.Pattern, path: r.URL.Path, start: time.Now()}
	e.flushing.exchange = e
	e.hijacker.exchange = e
	e.full.exchange = e
	return e
}

// writer is the form of it that offers what the original does.
func (e *exchange) writer() http.ResponseWriter {
	if _, ok := e.ResponseWriter.(http.Flusher); !ok {
		return e
	}
	_, hijacks := e.ResponseWriter.(http.Hijacker)
	_, reads := e.ResponseWriter.(io.ReaderFrom)
	switch {
	case hijacks && reads:
		return &e.full
	case hijacks:
		return &e.hijacker
	}
	return &e.flushing
}

func (e *exchange) elapsed() time.Duration {
	if e.hijacked {
		return e.took
	}
	return time.Since(e.start)
}

// class is the code label's index: 1 for 1xx to 5 for 5xx.
func (e *exchange) class(thrown any, r *http.Request) int {
	if e.hijacked {
		return 1
	}
	class := 2
	if e.code != 0 {
		class = e.code / 100
	}
	aborted := thrown == http.ErrAbortHandler
	if !e.returned {
		class = 5
	}
	// The client's going away is not our error; a genuine panic is, whoever listens.
	if class == 5 && (e.returned || aborted) && r.Context().Err() == context.Canceled {
		return 4
	}
	if class < 1 || class > 5 {
		return 5
	}
	return class
}

func (e *exchange) measured() *exchange { return e }

// Unwrap serves http.ResponseController.
func (e *exchange) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// WriteHeader notes the final code.
func (e *exchange) WriteHeader(code int) {
	if e.code == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		e.code = code
	}
	e.ResponseWriter.WriteHeader(code)
}

func (e *exchange) implicit() {
	if e.code == 0 {
		e.code = http.StatusOK
	}
}

// Write writes to the client.
func (e *exchange) Write(p []byte) (int, error) {
	e.implicit()
	return e.ResponseWriter.Write(p)
}

// WriteString spares io.WriteString a copy.
func (e *exchange) WriteString(s string) (int, error) {
	e.implicit()
	return io.WriteString(e.ResponseWriter, s)
}

type flushing struct{ *exchange }

// Flush sends what is buffered.
func (f *flushing) Flush() { f.flush() }

// hijacker is what middleware that compresses often gives: it flushes and is hijacked, and hides ReadFrom.
type hijacker struct{ *exchange }

// Flush sends what is buffered.
func (h *hijacker) Flush() { h.flush() }

// Hijack hands the connection over.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.hijack() }

type full struct{ *exchange }

// Flush sends what is buffered.
func (f *full) Flush() { f.flush() }

// ReadFrom keeps sendfile.
func (f *full) ReadFrom(src io.Reader) (int64, error) {
	f.implicit()
	return f.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
}

// Hijack hands the connection over.
func (f *full) Hijack() (net.Conn, *bufio.ReadWriter, error) { return f.hijack() }

func (e *exchange) flush() {
	e.implicit()
	e.ResponseWriter.(http.Flusher).Flush()
}

// hijack makes it no longer a request being served.
func (e *exchange) hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := e.ResponseWriter.(http.Hijacker).Hijack()
	if err == nil && !e.hijacked {
		e.took, e.hijacked = time.Since(e.start), true
		e.active.Dec()
	}
	return conn, rw, err
}
