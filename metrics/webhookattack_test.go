package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A receiver that was taken over sends nobody of ours elsewhere: not to this machine, not to the cloud's metadata, not to
// another scheme, and the Authorization header least of all. Nor does the error repeat where to.
func TestWebhookFollowsNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s arrived elsewhere, with Authorization %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	transport := &dials{RoundTripper: http.DefaultTransport}
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		for _, target := range []string{elsewhere.URL + "/s3cret", "//" + strings.TrimPrefix(elsewhere.URL, "http://"), "/same-host", "http://169.254.169.254/latest/meta-data/", "http://[::1]:1/", "http://localhost:1/", "file:///etc/passwd", "gopher://x/", "%zz"} {
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", target)
				w.WriteHeader(status)
			}))
			transport.hosts = nil
			w := must(NewWebhook(strings.Replace(receiver.URL, "http://", "http://user:s3cret@", 1)+"/hook?key=s3cret", &WebhookOptions{
				Header: http.Header{"Authorization": {"Bearer s3cret"}}, Client: &http.Client{Transport: transport},
			}))
			err := w.post(t.Context(), &webhookMessage{})
			receiver.Close()
			if err == nil || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "meta-data") {
				t.Errorf("%d to %s: %v", status, target, err)
			}
			if len(transport.hosts) != 1 || transport.hosts[0] != strings.TrimPrefix(receiver.URL, "http://") {
				t.Errorf("%d to %s: requests went to %v", status, target, transport.hosts)
			}
		}
	}
	for _, address := range []string{"file:///etc/passwd", "gopher://h/x", "ftp://h/x", "unix:///run/docker.sock", "//h/x", "http:///x", "javascript:alert(1)", "http://h:s3cret@", "HTTP", ""} {
		if _, err := NewWebhook(address, nil); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// dials notes where requests go.
type dials struct {
	http.RoundTripper
	hosts []string
}

func (d *dials) RoundTrip(r *http.Request) (*http.Response, error) {
	d.hosts = append(d.hosts, r.URL.Host)
	return d.RoundTripper.RoundTrip(r)
}
