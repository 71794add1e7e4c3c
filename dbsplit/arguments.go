package dbsplit

import (
	"bytes"
	"math/big"
	"net/netip"
	"reflect"
	"time"
)

// copied returns args for a statement that may be sent when its caller has gone on, and changes what it gave. ok is false
// when one of them cannot be copied for sure: it holds a pointer that only its own package can follow, a function or a channel.
func copied(args []any) (own []any, ok bool) {
	own = make([]any, len(args))
	for i, arg := range args {
		switch arg := arg.(type) {
		case nil, bool, int, int16, int32, int64, float64, string, time.Time, time.Duration: // what most are
			own[i] = arg
		case []byte:
			own[i] = bytes.Clone(arg)
		default:
			v, ok := deepCopy(reflect.ValueOf(arg), maxDepth)
			if !ok {
				return nil, false
			}
			own[i] = v.Interface()
		}
	}
	return own, true
}

// maxDepth keeps copying from following a circle of pointers.
const maxDepth = 10

func deepCopy(v reflect.Value, depth int) (reflect.Value, bool) {
	t := v.Type()
	if fixed(t) {
		return v, true
	}
	if depth == 0 {
		return v, false
	}
	if n, ok := v.Interface().(*big.Int); ok && n != nil {
		return reflect.ValueOf(new(big.Int).Set(n)), true
	}
	out := reflect.New(t).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return v, true
		}
		pointee, ok := deepCopy(v.Elem(), depth-1)
		if !ok {
			return v, false
		}
		if v.Kind() == reflect.Interface {
			out.Set(pointee)
			return out, true
		}
		p := reflect.New(t.Elem())
		p.Elem().Set(pointee)
		return p.Convert(t), true
	case reflect.Slice:
		if v.IsNil() {
			return v, true
		}
		out = reflect.MakeSlice(t, v.Len(), v.Len())
		return out, copyElements(out, v, depth)
	case reflect.Array:
		return out, copyElements(out, v, depth)
	case reflect.Map:
		return copyMap(v, depth)
	case reflect.Struct:
		return out, copyFields(out, v, depth)
	default:
		return v, false
	}
}

func copyElements(out, v reflect.Value, depth int) bool {
	if fixed(v.Type().Elem()) {
		reflect.Copy(out, v)
		return true
	}
	for i := range v.Len() {
		element, ok := deepCopy(v.Index(i), depth-1)
		if !ok {
			return false
		}
		out.Index(i).Set(element)
	}
	return true
}

func copyMap(v reflect.Value, depth int) (reflect.Value, bool) {
	if v.IsNil() {
		return v, true
	}
	if !fixed(v.Type().Key()) {
		return v, false
	}
	out := reflect.MakeMapWithSize(v.Type(), v.Len())
	for each := v.MapRange(); each.Next(); {
		value, ok := deepCopy(each.Value(), depth-1)
		if !ok {
			return v, false
		}
		out.SetMapIndex(each.Key(), value)
	}
	return out, true
}

func copyFields(out, v reflect.Value, depth int) bool {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if fixed(f.Type) {
			continue
		}
		if !f.IsExported() {
			return false
		}
		field, ok := deepCopy(v.Field(i), depth-1)
		if !ok {
			return false
		}
		out.Field(i).Set(field)
	}
	return true
}

// fixed reports whether values of type t hold nothing that could be changed through another copy.
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
