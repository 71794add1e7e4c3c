package scalehook_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/queue/scalehook"
)

var decision = queue.Decision{Queue: "leads", Generation: 1_800_000_000_001, Workers: 5, Previous: 2, Reason: queue.ReasonAbove}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	token := file(t, "token", "s3cret\n")
	var last int64
	done := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d queue.Decision
		if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
			t.Error(err)
		}
		if r.Method != "POST" || r.Header.Get("Authorization") != "Bearer s3cret" || r.Header.Get("Content-Type") != "application/json" ||
			r.Header.Get("Idempotency-Key") != fmt.Sprintf("leads-%d", d.Generation) {
			t.Errorf("%s with %v", r.Method, r.Header)
		}
		if d.Generation <= last {
			http.Error(w, "old", http.StatusConflict)
			return
		}
		last, done = d.Generation, d.Workers
	}))
	defer server.Close()
	hook, err := scalehook.HTTP(server.URL+"/scale?key=hidden", &scalehook.HTTPOptions{TokenFile: token})
	if err != nil {
		t.Fatal(err)
	}
	if err := hook(t.Context(), decision); err != nil || done != 5 {
		t.Errorf("%v, %d workers", err, done)
	}
	stale := decision
	stale.Generation--
	stale.Workers = 1
	if err := hook(t.Context(), stale); !errors.Is(err, scalehook.ErrOldGeneration) || !strings.Contains(err.Error(), "newer generation") || done != 5 {
		t.Errorf("a stale call: %v, %d workers", err, done)
	}
	if err := os.WriteFile(token, []byte("with space"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := hook(t.Context(), decision); err == nil || strings.Contains(err.Error(), "with space") {
		t.Errorf("a token that cannot be sent: %v", err)
	}
}

// TestHTTPFailures looks for errors that are short, say what to do and hold no secret, and for requests that go where
// they should not.
func TestHTTPFailures(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect to another host was followed")
	}))
	defer elsewhere.Close()
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+"/s3cret", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusPermanentRedirect) })
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/round", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/hangs", func(http.ResponseWriter, *http.Request) { <-release })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		for err := error(nil); err == nil; { // without an end
			_, err = io.WriteString(w, strings.Repeat("s3cret ", 10_000))
		}
	})
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); r.Method != "POST" || !strings.Contains(string(body), `"workers":5`) {
			t.Errorf("%s %s", r.Method, body)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(release)
	for path, want := range map[string]string{
		"/elsewhere": "is not followed", "/get": "redirects a POST to a GET", "/moved": "", "/round": "more than 3 redirects",
		"/hangs": "deadline exceeded", "/broken": "status 500", "/ok": "",
	} {
		target := strings.Replace(server.URL, "http://", "http://user:s3cret@", 1) + path + "?key=s3cret"
		hook, err := scalehook.HTTP(target, &scalehook.HTTPOptions{Timeout: 200 * time.Millisecond, Client: server.Client()})
		if err != nil {
			t.Fatal(err)
		}
		if path != "/hangs" {
			hook, _ = scalehook.HTTP(target, nil)
		}
		err = hook(t.Context(), decision)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") || len(err.Error()) > 500 || !strings.HasPrefix(err.Error(), "scalehook: ") {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	hook, err := scalehook.HTTP(server.URL+"/hangs", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := hook(ctx, decision); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beyond the leader's trust: %v", err)
	}
	server.CloseClientConnections()
	for _, c := range []struct {
		target string
		opts   scalehook.HTTPOptions
	}{
		{"http://[::1", scalehook.HTTPOptions{}}, {"ftp://host/s3cret", scalehook.HTTPOptions{}}, {"/path", scalehook.HTTPOptions{}}, {"", scalehook.HTTPOptions{}},
		{"http://scaler.example/x?s3cret", scalehook.HTTPOptions{TokenFile: "token"}}, {"http://host/", scalehook.HTTPOptions{Timeout: -1}},
	} {
		if _, err := scalehook.HTTP(c.target, &c.opts); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", c.target, err)
		}
	}
}
