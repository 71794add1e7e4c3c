package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxDepth    = 32               // of a body's nesting
	bodyTimeout = 15 * time.Second // for a client to send its body
)

// readBody returns a pointer to a new value of the operation's body type, or nil when it has none, and what was sent.
func (rt *route) readBody(w http.ResponseWriter, r *http.Request) (body any, sent []byte, err error) {
	sent, err = takeBody(w, r, rt.handler.opts.MaxBody)
	if err != nil {
		return nil, nil, err
	}
	if rt.bodyType == nil {
		if len(bytes.TrimSpace(sent)) > 0 {
			return nil, nil, Invalid("body", "this operation takes no body: send none")
		}
		return nil, sent, nil
	}
	if err := checkContentType(r); err != nil {
		return nil, nil, err
	}
	body, err = decodeBody(sent, rt.bodyType)
	return body, sent, err
}

func takeBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, nil
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, problem(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes: send less", limit)
	case err != nil:
		p := Invalid("body", "the body did not arrive whole: send it again")
		p.Cause = err
		return nil, p
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // left standing, it would cancel the request's context
	return data, nil
}

func checkContentType(r *http.Request) error {
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return problem(http.StatusUnsupportedMediaType, "the body is encoded: send it without Content-Encoding")
	}
	values := r.Header["Content-Type"]
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return nil // curl -X POST sends none
	}
	media, params, err := mime.ParseMediaType(values[0])
	charset := params["charset"]
	if len(values) > 1 || err != nil || media != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return problem(http.StatusUnsupportedMediaType, "the body has to be JSON: send -H 'Content-Type: application/json' (curl -d alone says that it is a form)")
	}
	return nil
}

// decodeBody decodes a JSON object strictly. Nothing or white space is the zero value.
func decodeBody(data []byte, t reflect.Type) (any, error) {
	target := reflect.New(t).Interface()
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return target, nil
	}
	if !utf8.Valid(data) {
		return nil, Invalid("body", "the body is not valid UTF-8")
	}
	if data[0] != '{' {
		return nil, Invalid("body", "the body has to be one JSON object {…}")
	}
	if err := checkNesting(data); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(target); err != nil {
		return nil, bodyProblem(err, t)
	}
	return target, nil
}

// checkNesting refuses what encoding/json lets pass: repeated names (the last would win), deep nesting, and anything
// after the object.
func checkNesting(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var open []map[string]bool // names seen in each open object; nil for an array
	var key []bool             // whether a name comes next
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return Invalid("body", "the body is not JSON: %v", err)
		}
		top := len(open) - 1
		if name, ok := token.(string); ok && top >= 0 && open[top] != nil && key[top] {
			if top == 0 {
				name = strings.ToLower(name) // encoding/json folds the case of field names
			}
			if open[top][name] {
				return Invalid(clip(name), "the body has %q twice: send it once", clip(name))
			}
			open[top][name], key[top] = true, false
			continue
		}
		switch token {
		case json.Delim('{'):
			open, key = append(open, map[string]bool{}), append(key, true)
		case json.Delim('['):
			open, key = append(open, nil), append(key, false)
		case json.Delim('}'), json.Delim(']'):
			open, key = open[:top], key[:top]
		}
		if len(open) > maxDepth {
			return Invalid("body", "the body is nested more than %d deep", maxDepth)
		}
		if top = len(open) - 1; top >= 0 && token != json.Delim('{') && token != json.Delim('[') {
			key[top] = true
		}
		if top < 0 && len(bytes.TrimSpace(data[dec.InputOffset():])) > 0 {
			return Invalid("body", "something follows the JSON object: send one object only")
		}
	}
}

// bodyProblem names the field that is wrong.
func bodyProblem(err error, t reflect.Type) *Problem {
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		return Invalid(mismatch.Field, "%s has to be %s, not a JSON %s", mismatch.Field, plainType(mismatch.Type), mismatch.Value)
	}
	if quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name := clip(strings.Trim(quoted, `"`))
		return Invalid(name, "there is no field %q here: %s", name, fieldNames(t))
	}
	return Invalid("body", "the body does not fit: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func fieldNames(t reflect.Type) string {
	var names []string
	for _, f := range jsonFields(t) {
		names = append(names, f.name)
	}
	if len(names) == 0 {
		return "it takes none"
	}
	return "it takes " + strings.Join(names, ", ")
}

func plainType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return fmt.Sprintf("a number (%s)", t)
}
