package scaleaware

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A hook that has answered itself keeps everything of the handler's away.
func TestHookThatAnswersItself(t *testing.T) {
	refused := errors.New("refused")
	for name, try := range map[string]func(w *ResponseWriter) error{
		"Write":       func(w *ResponseWriter) error { _, err := w.Write([]byte("handler")); return err },
		"WriteString": func(w *ResponseWriter) error { _, err := io.WriteString(w, "handler"); return err },
		"ReadFrom":    func(w *ResponseWriter) error { _, err := io.Copy(w, strings.NewReader("handler")); return err },
		"Flush":       func(w *ResponseWriter) error { return http.NewResponseController(w).Flush() },
		"Hijack":      func(w *ResponseWriter) error { _, _, err := http.NewResponseController(w).Hijack(); return err },
		"nothing":     func(w *ResponseWriter) error { return w.Begin() },
		"WriteHeader": func(w *ResponseWriter) error { w.WriteHeader(http.StatusTeapot); return w.Begin() },
	} {
		t.Run(name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			runs := 0
			w := BeforeResponse(rec, func() error {
				runs++
				rec.WriteHeader(http.StatusServiceUnavailable)
				_, _ = rec.WriteString("hook")
				return refused
			})
			if w.Begun() {
				t.Error("begun before anything was written")
			}
			for range 2 {
				if err := try(w); !errors.Is(err, refused) {
					t.Errorf("error %v: the handler is not told", err)
				}
			}
			if rec.Code != http.StatusServiceUnavailable || rec.Body.String() != "hook" || runs != 1 || !w.Begun() {
				t.Errorf("answer %d %q after %d runs", rec.Code, rec.Body, runs)
			}
		})
	}
}

// plainWriter can do nothing but what http.ResponseWriter asks for.
type plainWriter struct{ http.ResponseWriter }

func TestWriterBelowThatCannot(t *testing.T) {
	w := BeforeResponse(plainWriter{httptest.NewRecorder()}, func() error { return nil })
	if err := w.FlushError(); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("flush: %v", err)
	}
	if _, _, err := w.Hijack(); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("hijack: %v", err)
	}
	if n, err := w.ReadFrom(strings.NewReader("copied")); n != 6 || err != nil {
		t.Errorf("read from: %d, %v", n, err)
	}
}
