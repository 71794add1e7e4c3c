package deploytest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// build makes the programs of the image, once.
func (s *stage) build(t *testing.T) {
	t.Helper()
	bin := filepath.Join(s.home.Dir(), "bin")
	must(t, os.Mkdir(bin, 0o755)) //nolint:gosec // servers that are not root run them
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", bin+"/", "./examples/leadapi", "./examples/leadworker", "./examples/deploy/healthcheck")
	cmd.Dir = rootDir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go build: %v\n%s", err, out)
	}
}

func (s *stage) program(name string) string { return filepath.Join(s.home.Dir(), "bin", name) }

// startApplication migrates, and runs two API instances and a worker with the environment of docker-compose.yml.
func (s *stage) startApplication(t *testing.T) {
	t.Helper()
	s.run(t, "migrate", nil, s.environment(t, "migrate", ""), s.program("leadapi"), "migrate", "up")
	for n := range instances {
		s.startAPI(t, n+1)
	}
	env := append(s.environment(t, "worker", ""), "INSTANCE=worker", "ADMIN_ADDR="+s.addr("worker:3002"))
	s.start(t, "worker", nil, env, s.program("leadworker"))
	s.healthy(t, "worker")
	for n := range instances {
		s.healthy(t, fmt.Sprintf("api-%d", n+1))
	}
}

func (s *stage) startAPI(t *testing.T, n int) {
	t.Helper()
	name := fmt.Sprintf("api-%d", n)
	env := append(s.environment(t, "api", ""), "INSTANCE="+name, "HOST=127.0.0.1", "PORT="+s.port(name+":3000"), "ADMIN_ADDR="+s.addr(name+":3002"))
	s.start(t, name, nil, env, s.program("leadapi"))
}

// healthy waits as Compose does, by the health check's program.
func (s *stage) healthy(t *testing.T, name string) {
	t.Helper()
	await(t, name, s.processes[name], func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, s.program("healthcheck"), "http://"+s.addr(name+":3002")+"/readyz").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// TestManagementAsksForTheToken is why publishing the management port is no disaster, only a mistake.
func TestManagementAsksForTheToken(t *testing.T) {
	s := open(t)
	for _, name := range []string{"api-1", "worker"} {
		for path, want := range map[string]int{"/livez": 200, "/readyz?exclude=database,sessions": 200, "/metrics": 401, "/api/v1/performance/capacity/dashboard": 401, "/api/v1/admin/read-only-mode": 401} {
			if got := status(t, "http://"+s.addr(name+":3002")+path); got != want {
				t.Errorf("%s%s without a token: %d, want %d", name, path, got, want)
			}
		}
	}
}

// TestViewerMayOnlyRead: Prometheus and KEDA bear a token, and it is not the operator's.
func TestViewerMayOnlyRead(t *testing.T) {
	s := open(t)
	viewer := &http.Client{Transport: bearer(s.secretValue(t, "viewer_token"))}
	base := "http://" + s.addr("api-1:3002")
	for path, want := range map[string]int{"/metrics": 200, "/api/v1/performance/capacity/dashboard": 200} {
		if got := get(t, viewer, base+path).status; got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	res, err := do(t.Context(), viewer, http.MethodPost, base+"/api/v1/admin/read-only-mode", "{}")
	must(t, err)
	if res.status != http.StatusForbidden {
		t.Errorf("a viewer who turns read-only mode on: %d, want 403", res.status)
	}
}

type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

func status(t *testing.T, url string) int {
	t.Helper()
	res := get(t, http.DefaultClient, url)
	return res.status
}
