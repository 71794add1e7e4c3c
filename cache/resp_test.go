package cache

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

func TestReadReply(t *testing.T) {
	for text, want := range map[string]any{
		"+OK\r\n":                 "OK",
		":-3\r\n":                 int64(-3),
		"$3\r\na\r\n\r\n":         "a\r\n",
		"$-1\r\n":                 nil,
		"_\r\n":                   nil,
		"#t\r\n":                  true,
		",1.5\r\n":                "1.5",
		"-ERR no\r\n":             serverError("ERR no"),
		"*2\r\n$1\r\na\r\n:1\r\n": []any{"a", int64(1)},
		"*0\r\n":                  []any{},
		"*-1\r\n":                 nil,
		"%1\r\n+k\r\n+v\r\n":      []any{"k", "v"},
		">2\r\n$10\r\ninvalidate\r\n*1\r\n+k\r\n": push{"invalidate", []any{"k"}},
		">2\r\n$10\r\ninvalidate\r\n_\r\n":        push{"invalidate", nil},
		"=7\r\ntxt:abc\r\n":                       "txt:abc",
		"~1\r\n:7\r\n":                            []any{int64(7)},
		"*1\r\n*1\r\n*1\r\n*1\r\n:7\r\n":          []any{[]any{[]any{[]any{int64(7)}}}},
	} {
		got, err := readReply(bufio.NewReader(strings.NewReader(text)), 0)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %#v, %v; want %#v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "\r\n", "+OK\n", "+OK", ":x\r\n", "$5\r\nab\r\n", "$99999999999\r\n", "$-2\r\n", "*-2\r\n", "*2\r\n:1\r\n", "?\r\n",
		strings.Repeat("*1\r\n", 100) + ":1\r\n", "*9999999\r\n",
	} {
		if got, err := readReply(bufio.NewReader(strings.NewReader(text)), 0); err == nil {
			t.Errorf("%q: got %#v and no error", text, got)
		}
	}
}

// What a server, or who pretends to be one, says neither panics nor takes memory that it has not sent.
func FuzzReadReply(f *testing.F) {
	f.Add([]byte(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"))
	f.Add([]byte("*1048576\r\n"))
	f.Add([]byte("$16777216\r\n"))
	f.Add([]byte("%1048576\r\n*1048576\r\n*1048576\r\n*1048576\r\n"))
	f.Add([]byte("*3\r\n$16777216\r\nx"))
	f.Add([]byte("(123\r\n,inf\r\n#f\r\n_\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), 4096)
		for {
			_, err := readReply(r, 0)
			if err == nil {
				continue
			}
			if errors.Is(err, io.EOF) && len(data) == 0 {
				return
			}
			return
		}
	})
}

// Sizes that are only announced cost little.
func TestAnnouncedSizesCostLittle(t *testing.T) {
	deep := strings.Repeat("*1048576\r\n", maxDepth)
	for _, text := range []string{deep, "$16777216\r\nx", "*1048576\r\n$16777216\r\n"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readReply(bufio.NewReader(strings.NewReader(text)), 0)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%.20q: no error", text)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 2<<20 {
			t.Errorf("%.20q took %d bytes", text, took)
		}
	}
}
