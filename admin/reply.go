package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// encode is JSON that people can read in a terminal: <, > and & stay what they are.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("admin: the reply cannot be written as JSON: %w", err)
	}
	return buf.Bytes(), nil
}

func writeReply(w http.ResponseWriter, reply any) error {
	if reply == nil {
		reply = struct{}{}
	}
	data, err := encode(reply)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if started, ok := reply.(*Started); ok && started != nil {
		status = http.StatusAccepted
		w.Header().Set("Location", started.Status)
	}
	writeJSON(w, "application/json", status, data)
	return nil
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="operations"`)
	}
	out := *p
	if out.Title == "" {
		out.Title = http.StatusText(out.Status)
	}
	data, err := encode(out)
	if err != nil {
		data = []byte("{}\n")
	}
	writeJSON(w, "application/problem+json", p.Status, data)
}

func writeJSON(w http.ResponseWriter, contentType string, status int, data []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client left: nobody to tell
}
