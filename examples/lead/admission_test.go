package lead

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAdmissionRefusesWhatIsTooMuch(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	handler := newAdmission(2).Handler(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			inside <- struct{}{}
			<-leave
		}
		w.WriteHeader(http.StatusNoContent)
	})
	ask := func(path string) *http.Response {
		w := httptest.NewRecorder()
		handler(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Result()
	}
	done := make(chan int)
	for range 2 {
		go func() { done <- ask("/slow").StatusCode }()
		<-inside
	}
	if got := ask("/quick"); got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" {
		t.Errorf("the third at once: %d, Retry-After %q", got.StatusCode, got.Header.Get("Retry-After"))
	}
	close(leave)
	for range 2 {
		if got := <-done; got != http.StatusNoContent {
			t.Errorf("one that was let in: %d", got)
		}
	}
	if got := ask("/quick").StatusCode; got != http.StatusNoContent {
		t.Errorf("after they have left: %d", got)
	}
}
