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
	if len(line) == 0 || depth > maxDepth {
		return nil, errRESP
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+', '(', ',':
		return string(rest), nil
	case '-':
		return serverError(rest), nil
	case ':':
		return strconv.ParseInt(string(rest), 10, 64)
	case '_':
		return nil, nil
	case '#':
		return string(rest) == "t", nil
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

// readLine returns a line that is good until the next read.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, errRESP
	}
	return line[:len(line)-2], nil
}

func readBulk(r *bufio.Reader, length []byte) (any, error) {
	n, err := strconv.Atoi(string(length))
	if n == -1 {
		return nil, nil
	}
	if err != nil || n < 0 || n > maxBulk {
		return nil, errRESP
	}
	if n+2 <= r.Size() {
		return readShort(r, n)
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

// readShort reads a bulk of n bytes that the reader's buffer can hold.
func readShort(r *bufio.Reader, n int) (any, error) {
	bulk, err := r.Peek(n + 2)
	if err != nil {
		return nil, err
	}
	if bulk[n] != '\r' || bulk[n+1] != '\n' {
		return nil, errRESP
	}
	text := string(bulk[:n])
	_, err = r.Discard(n + 2)
	return text, err
}

func readItems(r *bufio.Reader, count []byte, per, depth int) ([]any, error) {
	n, err := strconv.Atoi(string(count))
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
