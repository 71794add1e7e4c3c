package scalehook

import (
	"bytes"
	"fmt"
	"net"
	"os"
)

// readToken reads a bearer token, anew for each call as Kubernetes replaces it hourly.
func readToken(path string) (string, error) {
	text, err := os.ReadFile(path) // #nosec G304 -- from the options
	if err != nil {
		return "", fmt.Errorf("scalehook: read the token: %w", err)
	}
	text = bytes.TrimSpace(text)
	if len(text) == 0 || bytes.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("scalehook: the token in %s is empty or has characters that a header cannot hold", path)
	}
	return string(text), nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// clip keeps foreign text short, and printable.
func clip(s string) string {
	const limit = 200
	text := make([]rune, 0, limit)
	for _, r := range s {
		if len(text) == limit {
			return string(text) + "…"
		}
		if r < ' ' || r == 0x7f {
			r = ' '
		}
		text = append(text, r)
	}
	return string(text)
}
