package dbsplit

import (
	"bytes"
	"maps"
	"math/big"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// copied returns args for a statement that may be sent twice at once, and when its caller has gone on, and changes what it gave.
// ok is false when one of them is not plain. What code of the caller's encodes may lock, or change itself, so it is not
// copied, unless it holds nothing that two copies could share.
func copied(args []any) (own []any, ok bool) {
	return copyAll(args, maxDepth)
}

// maxDepth keeps copying from following a circle.
const maxDepth = 10

func copyAll(args []any, depth int) (own []any, ok bool) {
	if args == nil || depth == 0 {
		return nil, args == nil
	}
	own = make([]any, len(args))
	for i, arg := range args {
		if own[i], ok = copyOf(arg, depth); !ok {
			return nil, false
		}
	}
	return own, true
}

func copyOf(arg any, depth int) (own any, ok bool) {
	switch arg := arg.(type) {
	case nil, bool, int, int16, int32, int64, float64, string, time.Time, time.Duration: // what most are
		return arg, true
	case []byte:
		return bytes.Clone(arg), true
	case []any:
		own, ok := copyAll(arg, depth-1)
		return own, ok
	case map[string]any:
		own, ok := copyNamed(arg, depth-1)
		return own, ok
	case pgx.NamedArgs:
		own, ok := copyNamed(arg, depth-1)
		return pgx.NamedArgs(own), ok
	case pgx.StrictNamedArgs:
		own, ok := copyNamed(arg, depth-1)
		return pgx.StrictNamedArgs(own), ok
	case pgx.QueryResultFormats:
		return slices.Clone(arg), true
	case pgx.QueryResultFormatsByOID:
		return maps.Clone(arg), true
	case pgtype.Numeric:
		if arg.Int != nil {
			arg.Int = new(big.Int).Set(arg.Int)
		}
		return arg, true
	}
	v := reflect.ValueOf(arg)
	switch t := v.Type(); {
	case fixed(t):
		return arg, true
	case t.Name() != "": // it may have methods
		return nil, false
	case t.Kind() == reflect.Pointer && basic(t.Elem()):
		if v.IsNil() {
			return arg, true
		}
		p := reflect.New(t.Elem())
		p.Elem().Set(v.Elem())
		return p.Interface(), true
	case t.Kind() == reflect.Slice:
		return copySlice(v, depth-1)
	default:
		return nil, false
	}
}

func copyNamed(args map[string]any, depth int) (own map[string]any, ok bool) {
	if args == nil || depth == 0 {
		return nil, args == nil
	}
	own = make(map[string]any, len(args))
	for name, arg := range args {
		if own[name], ok = copyOf(arg, depth); !ok {
			return nil, false
		}
	}
	return own, true
}

func copySlice(v reflect.Value, depth int) (own any, ok bool) {
	t := v.Type()
	switch {
	case v.IsNil():
		return v.Interface(), true
	case depth == 0 || t.Elem().Kind() == reflect.Interface:
		return nil, false
	}
	out := reflect.MakeSlice(t, v.Len(), v.Len())
	if fixed(t.Elem()) {
		reflect.Copy(out, v)
		return out.Interface(), true
	}
	for i := range v.Len() {
		element, ok := copyOf(v.Index(i).Interface(), depth)
		if !ok {
			return nil, false
		}
		out.Index(i).Set(reflect.ValueOf(element))
	}
	return out.Interface(), true
}

// basic reports whether t is a type of the language itself without pointers, or a time.
func basic(t reflect.Type) bool {
	return t == reflect.TypeFor[time.Time]() || t.PkgPath() == "" && t.Kind() != reflect.Struct && fixed(t)
}

// fixed reports whether values of type t hold nothing that two copies could share.
func fixed(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[time.Time](), reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.Prefix]():
		return true
	}
	switch k := t.Kind(); k {
	case reflect.String:
		return true
	case reflect.Array:
		return fixed(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !fixed(t.Field(i).Type) {
				return false
			}
		}
		return true
	default:
		return k >= reflect.Bool && k <= reflect.Complex128
	}
}
