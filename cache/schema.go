package cache

import (
	"fmt"
	"hash/fnv"
	"io"
	"reflect"
)

// schemaOf hashes the shape of a type: kinds, exported field names and tags. During a deploy two versions of a program
// share the cache; a field that only one of them knows would otherwise come back as zero without an error.
func schemaOf(t reflect.Type) uint64 {
	h := fnv.New64a()
	writeShape(h, t, nil)
	return h.Sum64()
}

func writeShape(w io.Writer, t reflect.Type, above []reflect.Type) {
	for depth, seen := range above {
		if seen == t {
			fmt.Fprintf(w, "^%d", len(above)-depth)
			return
		}
	}
	above = append(above, t)
	fmt.Fprintf(w, "%d", t.Kind())
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		writeShape(w, t.Elem(), above)
	case reflect.Array:
		fmt.Fprintf(w, "[%d]", t.Len())
		writeShape(w, t.Elem(), above)
	case reflect.Map:
		writeShape(w, t.Key(), above)
		writeShape(w, t.Elem(), above)
	case reflect.Struct:
		for f := range t.Fields() {
			if f.IsExported() || f.Anonymous {
				fmt.Fprintf(w, ";%s %q ", f.Name, f.Tag)
				writeShape(w, f.Type, above)
			}
		}
		if t.NumField() == 0 || !t.Field(0).IsExported() {
			io.WriteString(w, t.String()) // opaque types such as time.Time have no shape but their name
		}
		io.WriteString(w, "}")
	}
}
