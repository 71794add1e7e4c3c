package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

var (
	operationID  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,63}$`)
	paramName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	pathLiteral  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*$`)
	pathWildcard = regexp.MustCompile(`^\{[A-Za-z_][A-Za-z0-9_]*\}$`)
	methods      = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	paramTypes   = []string{"string", "integer", "boolean", "duration"}
)

// mount adds an operation, or says everything that is wrong with it. Open ones are served without a token.
func (h *Handler) mount(op Operation, open bool) error {
	op.Params = slices.Clone(op.Params)
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("admin: operation %s (%s %s) %s", op.ID, op.Method, op.Path, fmt.Sprintf(format, args...)))
	}
	if !operationID.MatchString(op.ID) {
		bad("needs an ID of letters, digits, '.', '_' and '-' that begins with a letter")
	}
	if !slices.Contains(methods, op.Method) {
		bad("has a method that is none of %s", strings.Join(methods, ", "))
	}
	if (op.Do == nil) == (op.Handler == nil) {
		bad("needs either Do or Handler")
	}
	switch {
	case op.Role != Viewer && op.Role != Operator:
		bad("needs the role Viewer or Operator")
	case op.Role == Viewer && op.Method != http.MethodGet:
		bad("changes state, so its role has to be Operator")
	}
	if t := reflect.TypeOf(op.Body); t != nil {
		if op.Method == http.MethodGet {
			bad("is a GET, which takes no Body: use query parameters")
		}
		if t.Kind() != reflect.Struct {
			bad("has a Body that is a %s: give the zero value of a struct", t)
		}
	}
	for _, other := range h.routes {
		if other.ID == op.ID {
			bad("has the ID of %s %s: give each operation its own", other.Method, other.Path)
		}
	}
	names, err := pathNames(op.Path)
	if err != nil {
		bad("%s", err)
	}
	for _, problem := range checkParams(&op, names) {
		bad("%s", problem)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	rt := &route{Operation: op, handler: h, open: open, write: op.Method != http.MethodGet && !op.relays, bodyType: reflect.TypeOf(op.Body)}
	if err := h.register(op.Method+" "+op.Path, rt); err != nil {
		bad("overlaps another operation's path: %v", err)
		return errors.Join(errs...)
	}
	h.routes = append(h.routes, rt)
	return nil
}

// register turns ServeMux's panic about a conflict into an error.
func (h *Handler) register(pattern string, rt *route) (err error) {
	defer func() {
		if p := recover(); p != nil {
			text, _, _ := strings.Cut(fmt.Sprint(p), "\n")
			err = errors.New(text)
		}
	}()
	h.mux.Handle(pattern, rt)
	return nil
}

// pathNames returns the wildcards of a path.
func pathNames(path string) ([]string, error) {
	if path == "/{$}" {
		return nil, nil
	}
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, errors.New("needs a path that begins with /")
	}
	var names []string
	for segment := range strings.SplitSeq(rest, "/") {
		switch {
		case pathLiteral.MatchString(segment):
		case pathWildcard.MatchString(segment):
			name := strings.Trim(segment, "{}")
			if slices.Contains(names, name) {
				return nil, fmt.Errorf("names {%s} twice in its path", name)
			}
			names = append(names, name)
		default:
			return nil, fmt.Errorf("has the path segment %q: use letters, digits, '.', '_', '~', '-', or a whole segment {name}", segment)
		}
	}
	return names, nil
}

// checkParams adds what Params leaves out and returns what is wrong with the rest.
func checkParams(op *Operation, names []string) []string {
	var wrong []string
	seen := map[string]bool{}
	for i := range op.Params {
		p := &op.Params[i]
		if p.Type == "" {
			p.Type = "string"
		}
		switch {
		case !paramName.MatchString(p.Name):
			wrong = append(wrong, fmt.Sprintf("has a parameter named %q: use letters, digits and '_'", p.Name))
		case p.In != "path" && p.In != "query":
			wrong = append(wrong, fmt.Sprintf("has the parameter %s in %q: use path or query", p.Name, p.In))
		case p.In == "path" && !slices.Contains(names, p.Name):
			wrong = append(wrong, fmt.Sprintf("describes the path parameter %s, which its path does not name", p.Name))
		case p.In == "query" && p.Name == "dry_run":
			wrong = append(wrong, "describes dry_run, which every write has: read Call.DryRun")
		case !slices.Contains(paramTypes, p.Type):
			wrong = append(wrong, fmt.Sprintf("has the parameter %s of type %q: use one of %s", p.Name, p.Type, strings.Join(paramTypes, ", ")))
		case seen[p.In+" "+p.Name]:
			wrong = append(wrong, fmt.Sprintf("describes the parameter %s twice", p.Name))
		}
		seen[p.In+" "+p.Name] = true
	}
	for _, name := range names {
		if !seen["path "+name] {
			op.Params = append(op.Params, Param{Name: name, In: "path", Type: "string"})
		}
	}
	return wrong
}

// canonical holds for an escaped path without empty, dot or unprintable segments in any spelling: a proxy in front may
// have read such a path in another way than ServeMux does.
func canonical(escaped string) bool {
	if escaped == "/" {
		return true
	}
	rest, ok := strings.CutPrefix(escaped, "/")
	if !ok || len(escaped) > 2048 {
		return false
	}
	for segment := range strings.SplitSeq(rest, "/") {
		plain, err := url.PathUnescape(segment)
		if err != nil || plain == "" || strings.ContainsFunc(plain, func(r rune) bool { return r < 0x20 || r == 0x7f || r == 0xfffd }) {
			return false
		}
		for part := range strings.SplitSeq(plain, "/") { // %2F
			if part == "." || part == ".." {
				return false
			}
		}
	}
	return true
}
