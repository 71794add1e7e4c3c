package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"runtime/debug"
	"time"
)

// route is an operation that is mounted.
type route struct {
	Operation
	handler  *Handler
	open     bool // served without a token
	write    bool
	bodyType reflect.Type
}

// visit is what is known of one request when it ends.
type visit struct {
	id      Identity
	known   bool
	refused bool // by the guard
	dryRun  bool
}

type visitKey struct{}

// known reports whether the caller of an open route has shown who it is.
func known(ctx context.Context) bool {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v != nil && v.known
}

func (rt *route) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	sw := &statusWriter{ResponseWriter: w}
	v := &visit{}
	err := rt.attempt(sw, r, v)
	if rt.write {
		defer func() { rt.handler.journal.add(rt.record(r, v, sw.status, began, err), v.refused) }()
	}
	if err == nil {
		return
	}
	if err == errBrokenOff {
		panic(http.ErrAbortHandler)
	}
	if sw.status != 0 { // a Handler broke off in the middle of its answer
		rt.handler.report(r, rt.ID, err, nil)
		panic(http.ErrAbortHandler)
	}
	rt.handler.fail(sw, r, rt.ID, err)
}

// errBrokenOff is that a Handler asked the server to break the connection.
var errBrokenOff error = problem(http.StatusInternalServerError, "the answer was broken off")

func (rt *route) attempt(w *statusWriter, r *http.Request, v *visit) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				err = errBrokenOff
				return
			}
			err = &panicError{value: p, stack: debug.Stack()}
		}
	}()
	h := rt.handler
	id, refusal := h.guard.identify(r)
	v.id, v.known = id, refusal == nil
	if !rt.open {
		if refusal == nil {
			refusal = h.guard.admit(r, id, rt.Role, rt.write)
		}
		v.refused = refusal != nil
		if rt.write {
			spender := id.Name
			if v.refused { // a page of another site comes with an operator's name, and must not spend what is the operator's
				spender = ""
			}
			if limited := h.limiter.take(spender, time.Now()); limited != nil {
				refusal = limited
			}
		}
		if refusal != nil {
			return refusal
		}
	}
	if rt.Handler != nil {
		rt.Handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitKey{}, v)))
		return nil
	}
	call := &Call{Actor: id.Name, Request: r, Background: h.background}
	if call.DryRun, err = rt.readParams(r); err != nil {
		return err
	}
	v.dryRun = call.DryRun
	var sent []byte
	if call.Body, sent, err = rt.readBody(w, r); err != nil {
		return err
	}
	key := ""
	if rt.write {
		if key, err = idempotencyKey(r); err != nil {
			return err
		}
	}
	if key == "" {
		reply, err := rt.do(r, call)
		if err != nil {
			return err
		}
		return writeReply(w, reply)
	}
	known := repeatKey{id.Name, key}
	first, err := h.repeats.begin(known, fingerprint(r, sent), time.Now())
	if err != nil {
		return err
	}
	if first != nil {
		return first.write(w)
	}
	var reply any
	err = errors.New("admin: the operation panicked")
	defer func() { h.repeats.finish(known, reply, err) }()
	if reply, err = rt.do(r, call); err != nil {
		return err
	}
	return writeReply(w, reply)
}

func (rt *route) do(r *http.Request, call *Call) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), rt.handler.opts.Timeout)
	defer cancel()
	return rt.Do(ctx, call)
}

func (rt *route) record(r *http.Request, v *visit, status int, began time.Time, err error) Record {
	record := Record{
		Time: began.UTC(), Actor: v.id.Name, Operation: rt.ID, Method: r.Method, Path: r.URL.EscapedPath(),
		DryRun: v.dryRun, Status: status, Duration: time.Since(began), Remote: r.RemoteAddr,
	}
	if v.known {
		record.Role = v.id.Role.String()
	}
	if status == 0 {
		record.Status = http.StatusOK
	}
	if err != nil {
		p := asProblem(err)
		record.Error = p.Detail
		if status == 0 {
			record.Status = p.Status
		}
	}
	return record
}

// fail answers with the problem and logs what the client does not see.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, id string, err error) {
	p := asProblem(err)
	h.report(r, id, err, p)
	writeProblem(w, p)
}

func (h *Handler) report(r *http.Request, id string, err error, p *Problem) {
	if p != nil && p.Status < 500 && p.Cause == nil {
		return
	}
	attrs := append(errorAttrs(err), slog.String("operation", id), slog.String("method", r.Method), slog.String("path", r.URL.EscapedPath()))
	if p != nil {
		attrs = append(attrs, slog.Int("status", p.Status))
	}
	level := slog.LevelError
	if p != nil && p.Status < 500 {
		level = slog.LevelWarn
	}
	h.log.LogAttrs(r.Context(), level, "operation failed", attrs...)
}

// statusWriter remembers the status for the audit.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
