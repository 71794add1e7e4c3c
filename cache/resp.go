package cache

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// push is what a server sends unasked.
type push []any

// serverError is an error reply.
type serverError string

func (e serverError) Error() string { return string(e) }

const (
	maxBulk  = 16 << 20 // no name of a key is longer, and no report on a cluster
	maxItems = 1 << 20
	maxDepth = 8
)

var errRESP = errors.New("cache: the server does not speak RESP3 as expected")

// readReply reads one RESP3 value: string, int64, nil, bool, float64, serverError, []any (maps flattened) or push.
func readReply(r *bufio.Reader, depth int) (any, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	if line == "" || depth > maxDepth {
		return nil, errRESP
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+', '(', ',':
		return rest, nil
	case '-':
		return serverError(rest), nil
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	case '_':
		return nil, nil
	case '#':
		return rest == "t", nil
	case '$', '=', '!':
		return readBulk(r, rest)
	case '*', '~', '>':
		items, err := readItems(r, rest, 1, depth)
		if kind == '>' && err == nil {
			return push(items), nil
		}
		if items == nil && err == nil {
			return nil, nil
		}
		return items, err
	case '%':
		return readItems(r, rest, 2, depth)
	}
	return nil, fmt.Errorf("%w: type %q", errRESP, kind)
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return "", errRESP
	}
	return string(line[:len(line)-2]), nil
}

func readBulk(r *bufio.Reader, length string) (any, error) {
	n, err := strconv.Atoi(length)
	if n == -1 {
		return nil, nil
	}
	if err != nil || n < 0 || n > maxBulk {
		return nil, errRESP
	}
	var bulk bytes.Buffer // grows with what comes, not with what is announced
	if _, err := io.CopyN(&bulk, r, int64(n)+2); err != nil {
		return nil, err
	}
	text, ok := strings.CutSuffix(bulk.String(), "\r\n")
	if !ok {
		return nil, errRESP
	}
	return text, nil
}

func readItems(r *bufio.Reader, count string, per, depth int) ([]any, error) {
	n, err := strconv.Atoi(count)
	if n == -1 {
		return nil, nil
	}
	if err != nil || n < 0 || n > maxItems {
		return nil, errRESP
	}
	items := make([]any, 0, min(n*per, 4096))
	for range n * per {
		item, err := readReply(r, depth+1)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// appendCommand writes a command as servers want it.
func appendCommand(b []byte, args ...string) []byte {
	b = append(b, '*')
	b = strconv.AppendInt(b, int64(len(args)), 10)
	b = append(b, "\r\n"...)
	for _, arg := range args {
		b = append(b, '$')
		b = strconv.AppendInt(b, int64(len(arg)), 10)
		b = append(b, "\r\n"...)
		b = append(b, arg...)
		b = append(b, "\r\n"...)
	}
	return b
}
