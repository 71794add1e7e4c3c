package admin

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// object is a JSON object of the OpenAPI document.
type object = map[string]any

// jsonField is a field as encoding/json sees it.
type jsonField struct {
	name     string
	typ      reflect.Type
	optional bool
	quoted   bool
}

// jsonFields lists the fields of a struct, those of embedded structs included.
func jsonFields(t reflect.Type) []jsonField {
	var fields []jsonField
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		switch {
		case tag == "-", !f.IsExported() && !f.Anonymous:
		case f.Anonymous && name == "" && embedded.Kind() == reflect.Struct:
			fields = append(fields, jsonFields(embedded)...)
		case !f.IsExported():
		default:
			if name == "" {
				name = f.Name
			}
			fields = append(fields, jsonField{
				name: name, typ: f.Type, quoted: strings.Contains(options, "string"),
				optional: strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero"),
			})
		}
	}
	return fields
}

// schemas collects the named types of a document.
type schemas struct {
	names map[reflect.Type]string
	parts object
}

var (
	timeType      = reflect.TypeFor[time.Time]()
	durationType  = reflect.TypeFor[time.Duration]()
	rawType       = reflect.TypeFor[json.RawMessage]()
	marshalerType = reflect.TypeFor[json.Marshaler]()
	textType      = reflect.TypeFor[encoding.TextMarshaler]()
	unfitForName  = regexp.MustCompile(`[^A-Za-z0-9._-]+`)
)

// of describes a type. input is for request bodies, where every field may be left out.
func (s *schemas) of(t reflect.Type, input bool) object {
	if t == nil {
		return object{"type": "object"}
	}
	switch {
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t == durationType:
		return object{"type": "integer", "description": "nanoseconds"}
	case t == rawType:
		return object{}
	case t.Kind() == reflect.Pointer:
		return object{"anyOf": []any{s.of(t.Elem(), input), object{"type": "null"}}}
	case t.Implements(marshalerType), reflect.PointerTo(t).Implements(marshalerType):
		return object{}
	case t.Implements(textType), reflect.PointerTo(t).Implements(textType):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": []string{"string", "null"}, "contentEncoding": "base64"}
		}
		return object{"type": []string{"array", "null"}, "items": s.of(t.Elem(), input)}
	case reflect.Array:
		return object{"type": "array", "items": s.of(t.Elem(), input), "minItems": t.Len(), "maxItems": t.Len()}
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": s.of(t.Elem(), input)}
	case reflect.Struct:
		return s.structure(t, input)
	}
	return object{}
}

func (s *schemas) structure(t reflect.Type, input bool) object {
	if t.Name() == "" {
		return s.fields(t, input)
	}
	name, ok := s.names[t]
	if !ok {
		name = s.name(t)
		s.names[t] = name
		s.parts[name] = s.fields(t, input) // a type that holds itself finds its name above
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// name is the package and the type, made fit for a reference and unique.
func (s *schemas) name(t reflect.Type) string {
	base := strings.Trim(unfitForName.ReplaceAllString(t.String(), "_"), "_")
	name := base
	for i := 2; s.parts[name] != nil || s.taken(name); i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	return name
}

func (s *schemas) taken(name string) bool {
	for _, n := range s.names {
		if n == name {
			return true
		}
	}
	return false
}

func (s *schemas) fields(t reflect.Type, input bool) object {
	properties := object{}
	required := []string{}
	for _, f := range jsonFields(t) {
		schema := s.of(f.typ, input)
		if f.quoted {
			schema = object{"type": "string"}
		}
		properties[f.name] = schema
		if !f.optional && !input {
			required = append(required, f.name)
		}
	}
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	if input {
		out["additionalProperties"] = false
	}
	return out
}
