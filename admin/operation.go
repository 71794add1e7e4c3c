package admin

import (
	"context"
	"net/http"
)

// Role says who may call an operation.
type Role int

const (
	// Viewer may read state.
	Viewer Role = iota
	// Operator may also change it.
	Operator
)

// String returns "viewer" or "operator".
func (r Role) String() string {
	if r == Operator {
		return "operator"
	}
	return "viewer"
}

// Operation is one method on one path of the management listener. Packages return them from their Operations
// method; New mounts them with authentication, audit and one error shape, and describes them in /openapi.json.
type Operation struct {
	// Method is an HTTP method. GET operations must not change anything.
	Method string
	// Path is a net/http pattern without method, for example /api/v1/performance/jobs/{queue}/pause.
	Path string
	// ID names the operation in audit records and in the OpenAPI document, for example queue.pause.
	ID string
	// Summary is one line for people.
	Summary string
	// Role is who may call it. Zero means Viewer; New refuses a Viewer operation whose method is not GET.
	Role Role
	// Params describes path and query parameters. Path parameters that Path names and Params does not are
	// described as strings. Zero means no query parameters; unknown ones are refused.
	Params []Param
	// Body is a zero value of the struct that the request body is decoded into, for the contract and for
	// Call.Body. Unknown fields are refused, an empty body is the zero value. Zero means that no body is accepted.
	Body any
	// Reply is a zero value of what Do returns, for the contract. Zero means any JSON object.
	Reply any
	// Do does the work. Its result is written as JSON with status 200, or 202 if it is a *Started. Errors made by
	// this package's constructors keep their status; a passed deadline is a 504; any other error is a 500 whose text
	// goes to the log, not to the client. Do must obey Call.DryRun when the method is not GET.
	Do func(ctx context.Context, call *Call) (any, error)
	// Handler serves the path instead of Do where the reply is not JSON, as for /metrics.
	// Zero means Do.
	Handler http.Handler

	relays bool // changes nothing itself: it makes another request, which is guarded and recorded
}

// Param is a path or query parameter.
type Param struct {
	// Name is the parameter's name.
	Name string
	// In is "path" or "query".
	In string
	// Type is "string", "integer", "boolean" or "duration" (a Go duration such as 10m).
	Type string
	// Description is one line for people.
	Description string
}

// Call is one authenticated request to an operation, its input checked against the operation's description.
type Call struct {
	// Actor names who calls, for audit and for state that remembers its author: the token's name, or "loopback".
	Actor string
	// DryRun asks for what would be done, with nothing changed. Every operation that is not GET has it, as the
	// query parameter dry_run.
	DryRun bool
	// Body is a pointer to a fresh value of the operation's Body type, or nil.
	Body any
	// Request is the HTTP request. Its body is already read.
	Request *http.Request
	// Background runs long work that outlives the request and reports to GET /api/v1/operations/{id}.
	Background *Background
}

// Path returns a path parameter.
func (c *Call) Path(name string) string { return c.Request.PathValue(name) }

// Query returns a query parameter, or "".
func (c *Call) Query(name string) string { return c.Request.URL.Query().Get(name) }

// Body returns the decoded body of a call to an operation whose Body is a T.
func Body[T any](c *Call) T {
	if p, ok := c.Body.(*T); ok {
		return *p
	}
	var zero T
	return zero
}
