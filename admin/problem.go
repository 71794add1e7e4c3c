package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
)

// Problem is an error with an HTTP status, written as application/problem+json (RFC 9457). Text says what to do.
type Problem struct {
	// Status is the HTTP status.
	Status int `json:"status"`
	// Title is the status in words.
	Title string `json:"title"`
	// Detail says what is wrong and what to do. It reaches the client: no secret belongs in it.
	Detail string `json:"detail"`
	// Field names the parameter or body field at fault, if one is.
	Field string `json:"field,omitempty"`
	// RetryAfter is in seconds; zero means none.
	RetryAfter int `json:"-"`
	// Cause goes to the log only.
	Cause error `json:"-"`
}

func (p *Problem) Error() string { return "admin: " + p.Detail }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Cause }

// Invalid is 400: the field or parameter is wrong in the way that the text says.
func Invalid(field, format string, args ...any) *Problem {
	p := problem(http.StatusBadRequest, format, args...)
	p.Field = field
	return p
}

// NotFound is 404: what the path names does not exist; nothing was changed.
func NotFound(format string, args ...any) *Problem {
	return problem(http.StatusNotFound, format, args...)
}

// Conflict is 409: the state does not allow it.
func Conflict(format string, args ...any) *Problem {
	return problem(http.StatusConflict, format, args...)
}

// Unavailable is 503: a server that it needs does not answer; cause goes to the log.
func Unavailable(cause error, format string, args ...any) *Problem {
	p := problem(http.StatusServiceUnavailable, format, args...)
	p.Cause = cause
	p.RetryAfter = 1
	return p
}

// Unsupported is 501: this server or configuration cannot do it; the text says what would be needed.
func Unsupported(format string, args ...any) *Problem {
	return problem(http.StatusNotImplemented, format, args...)
}

func problem(status int, format string, args ...any) *Problem {
	return &Problem{Status: status, Title: http.StatusText(status), Detail: fmt.Sprintf(format, args...)}
}

// panicError is what an operation panicked with, for the log.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("admin: the operation panicked: %v", e.value) }

// asProblem is what a client may know of err. An error that was not written for clients keeps its text to itself.
func asProblem(err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		if p == nil || p.Status < 400 || p.Status > 599 {
			return problem(http.StatusInternalServerError, "the operation failed: the reason is in the service's log")
		}
		return p
	case errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusGatewayTimeout, "the operation did not end in time; part of it may be done: look before you repeat it")
	case errors.Is(err, context.Canceled):
		return problem(http.StatusServiceUnavailable, "the operation was cancelled: the service is stopping, or its caller left")
	}
	return problem(http.StatusInternalServerError, "the operation failed: the reason is in the service's log")
}

// errorAttrs is err for the log: with the cause that its text keeps from clients, and where it panicked.
func errorAttrs(err error) []slog.Attr {
	attrs := []slog.Attr{slog.Any("error", err)}
	var p *Problem
	if errors.As(err, &p) && p == nil {
		return []slog.Attr{slog.String("error", "the operation returned a nil *admin.Problem as its error")}
	} else if p != nil && p.Cause != nil {
		attrs = append(attrs, slog.Any("cause", p.Cause))
	}
	var broken *panicError
	if errors.As(err, &broken) {
		attrs = append(attrs, slog.String("stack", string(broken.stack)))
	}
	return attrs
}
