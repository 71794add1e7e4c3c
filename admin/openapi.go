package admin

import (
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"
)

// document is the OpenAPI 3.1 description of everything that is mounted.
type document struct {
	title   string
	handler *Handler
	data    []byte
}

func (d *document) operations() []Operation {
	return []Operation{{
		Method: http.MethodGet, Path: "/openapi.json", ID: "admin.openapi", Summary: "This document.",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, "application/json", http.StatusOK, d.data)
		}),
	}}
}

// prepare writes the document once everything is mounted.
func (d *document) prepare() error {
	s := &schemas{names: map[reflect.Type]string{}, parts: object{}}
	problemRef := s.of(reflect.TypeFor[Problem](), false)
	startedRef := s.of(reflect.TypeFor[Started](), false)
	paths := object{}
	for _, rt := range d.handler.routes {
		path := strings.TrimSuffix(rt.Path, "{$}")
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(rt.Method)] = d.describe(rt, s, startedRef)
	}
	doc := object{
		"openapi": "3.1.0",
		"info":    object{"title": d.title, "version": buildVersion()},
		"servers": []any{object{"url": "."}},
		"paths":   paths,
		"components": object{
			"schemas": s.parts,
			"responses": object{"problem": object{
				"description": "What is wrong and what to do (RFC 9457).",
				"content":     object{"application/problem+json": object{"schema": problemRef}},
			}},
			"securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer"}},
		},
	}
	var err error
	d.data, err = encode(doc)
	return err
}

func (d *document) describe(rt *route, s *schemas, started object) object {
	out := object{"operationId": rt.ID, "summary": rt.Summary, "x-role": rt.Role.String()}
	if tag, _, ok := strings.Cut(rt.ID, "."); ok {
		out["tags"] = []string{tag}
	}
	switch {
	case rt.open:
		out["security"] = []any{}
	case d.handler.guard.closed():
		out["security"] = []any{object{"bearer": []string{}}}
	}
	params := []any{}
	for _, p := range rt.Params {
		params = append(params, object{
			"name": p.Name, "in": p.In, "required": p.In == "path", "description": p.Description, "schema": paramSchema(p.Type),
		})
	}
	if rt.write || rt.relays {
		params = append(params, object{
			"name": "dry_run", "in": "query", "required": false, "description": "Tell what would be done and change nothing.",
			"schema": object{"type": "boolean"},
		})
	}
	if rt.write {
		params = append(params, object{
			"name": "Idempotency-Key", "in": "header", "required": false,
			"description": "The same key with the same request gives the first one's answer and does nothing again; with another request it is a 422. Remembered for a day, by this instance.",
			"schema":      object{"type": "string", "minLength": 1, "maxLength": maxKeyBytes},
		})
	}
	if len(params) > 0 {
		out["parameters"] = params
	}
	if rt.bodyType != nil {
		out["requestBody"] = object{"required": false, "content": jsonContent(s.of(rt.bodyType, true))}
	}
	if rt.relays {
		out["requestBody"] = object{"required": true, "content": object{"application/x-www-form-urlencoded": object{"schema": object{"type": "object"}}}}
	}
	out["responses"] = d.responses(rt, s, started)
	return out
}

func (d *document) responses(rt *route, s *schemas, started object) object {
	responses := object{"default": object{"$ref": "#/components/responses/problem"}}
	reply := reflect.TypeOf(rt.Reply)
	for reply != nil && reply.Kind() == reflect.Pointer {
		reply = reply.Elem()
	}
	switch {
	case rt.relays:
		responses["303"] = object{"description": "Done: look at the page."}
	case rt.Handler != nil && reply == nil:
		responses["200"] = object{"description": "Not JSON, or described by itself."}
	case reply == reflect.TypeFor[Started]():
		responses["202"] = object{"description": "Begun in the background.", "content": jsonContent(started)}
		if rt.write { // a dry run begins nothing
			responses["200"] = object{"description": "What would be done, or the result when it was waited for.", "content": jsonContent(object{"type": "object"})}
		}
	default:
		responses["200"] = object{"description": "Done.", "content": jsonContent(s.of(reply, false))}
		if rt.write {
			responses["202"] = object{"description": "Begun in the background.", "content": jsonContent(started)}
		}
	}
	return responses
}

func jsonContent(schema object) object {
	return object{"application/json": object{"schema": schema}}
}

func paramSchema(kind string) object {
	switch kind {
	case "integer", "boolean":
		return object{"type": kind}
	case "duration":
		return object{"type": "string", "examples": []string{"10m"}, "description": "A Go duration such as 90s, 10m or 1h30m."}
	}
	return object{"type": "string"}
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
