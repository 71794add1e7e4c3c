package deploytest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

const (
	deployDir = ".."       // examples/deploy
	rootDir   = "../../.." // the repository
	instances = 2          // of the API
)

// stage is the topology of docker-compose.yml as processes: the shipped files, copied, with other ports and paths.
type stage struct {
	home  *localserver.Home
	dir   string // a copy of examples/deploy in which secrets.sh has run
	ports map[string]int

	mu        sync.Mutex
	processes map[string]*localserver.Process
}

// shared is the one that all tests use.
var shared struct {
	sync.Mutex
	home   *localserver.Home
	stage  *stage
	broken bool
}

// services are what listens, by the names and ports that docker-compose.yml gives them.
var services = []string{
	"postgres-primary:5432", "postgres-replica:5432", "pgbouncer-primary:6432", "pgbouncer-replica:6432",
	"172.30.7.11:6379", "172.30.7.12:6379", "172.30.7.13:6379", "172.30.7.14:6379", "172.30.7.15:6379", "172.30.7.16:6379",
	"api-1:3000", "api-1:3002", "api-2:3000", "api-2:3002", "worker:3002", "nginx:8080", "prometheus:9090",
}

// open starts everything, once for all tests, in the order of the file's depends_on.
func open(t *testing.T) *stage {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.stage != nil {
		shared.stage.report(t)
		return shared.stage
	}
	if shared.broken {
		t.Fatal("the topology did not start: see the first test")
	}
	for _, program := range []string{"postgres", "psql", "pg_basebackup", "redis-server", "redis-cli", "pgbouncer", "nginx", "prometheus", "promtool"} {
		if _, _, err := localserver.Find(program); errors.Is(err, localserver.ErrNotInstalled) && os.Getenv("SCALEAWARE_REQUIRE_SERVERS") != "1" {
			t.Skip(err)
		}
	}
	shared.broken = true
	home, err := localserver.Open(&localserver.Options{DropRoot: true})
	must(t, err)
	shared.home = home
	s := &stage{home: home, dir: filepath.Join(home.Dir(), "deploy"), ports: map[string]int{}, processes: map[string]*localserver.Process{}}
	s.report(t)
	must(t, os.CopyFS(s.dir, os.DirFS(deployDir)))
	must(t, os.RemoveAll(filepath.Join(s.dir, "secrets"))) // a developer's own
	out, err := exec.CommandContext(t.Context(), filepath.Join(s.dir, "secrets.sh")).CombinedOutput()
	if err != nil {
		t.Fatalf("secrets.sh: %v\n%s", err, out)
	}
	// In containers the files are mounted one by one; here servers that are not root go through the directory.
	must(t, os.Chmod(filepath.Join(s.dir, "secrets"), 0o755)) //nolint:gosec // of a test
	for _, name := range services {
		s.ports[name], err = home.Port()
		must(t, err)
	}

	var ground sync.WaitGroup
	ground.Go(func() { s.build(t) })
	ground.Go(func() { s.startPostgres(t) })
	ground.Go(func() { s.startRedis(t) })
	ground.Wait()
	if t.Failed() {
		t.FailNow()
	}
	s.startPoolers(t)
	s.startApplication(t)
	s.startNginx(t)
	s.startPrometheus(t)
	shared.stage, shared.broken = s, false
	return s
}

// report prints the ends of all logs if the test fails.
func (s *stage) report(t *testing.T) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for name, p := range s.processes {
			log := p.Log()
			t.Logf("--- %s\n%s", name, log[max(0, len(log)-3000):])
		}
	})
}

// addr is where a service of the file listens here.
func (s *stage) addr(service string) string {
	return net.JoinHostPort("127.0.0.1", s.port(service))
}

func (s *stage) port(service string) string {
	port, ok := s.ports[service]
	if !ok {
		panic("no service " + service)
	}
	return strconv.Itoa(port)
}

func (s *stage) secret(name string) string { return filepath.Join(s.dir, "secrets", name) }

func (s *stage) secretValue(t *testing.T, name string) string {
	t.Helper()
	return string(read(t, s.secret(name)))
}

// here replaces the names, ports and paths of containers by those of this machine. Nothing else of the files is changed,
// but the two replacements beside nginx's and Prometheus's start.
func (s *stage) here(text, dir string) string {
	var pairs []string
	for name := range s.ports {
		pairs = append(pairs, name, s.addr(name))
	}
	pairs = append(pairs, "/run/secrets/", filepath.Join(s.dir, "secrets")+"/", "/etc/postgresql/", filepath.Join(s.dir, "postgres")+"/",
		"/run/pgbouncer", dir, "listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1",
		"listen 8080;", "listen "+s.addr("nginx:8080")+";", "/tmp/", dir+"/", "/dev/stdout", filepath.Join(dir, "access.log"))
	return strings.NewReplacer(pairs...).Replace(text)
}

// adapt writes a shipped file with what here replaces, into a directory of the servers.
func (s *stage) adapt(t *testing.T, name, dir string) (path string) {
	t.Helper()
	return write(t, filepath.Join(s.dir, filepath.Dir(name), "here-"+filepath.Base(dir)+"-"+filepath.Base(name)), s.here(string(read(t, filepath.Join(s.dir, name))), dir))
}

// environment is what docker-compose.yml gives a service, with its env_file.
func (s *stage) environment(t *testing.T, service, dir string) (env []string) {
	t.Helper()
	var file struct {
		Services map[string]struct {
			Environment map[string]string
			EnvFile     string `yaml:"env_file"`
		}
	}
	must(t, yaml.Unmarshal(read(t, filepath.Join(s.dir, "docker-compose.yml")), &file))
	found, ok := file.Services[service]
	if !ok {
		t.Fatalf("no service %s", service)
	}
	if found.EnvFile != "" {
		for line := range strings.Lines(s.here(string(read(t, filepath.Join(s.dir, found.EnvFile))), dir)) {
			env = append(env, strings.TrimSpace(line))
		}
	}
	for name, value := range found.Environment {
		env = append(env, name+"="+s.here(value, dir))
	}
	return env
}

// start runs a server, or a script that becomes one, with the programs' folders first in PATH.
func (s *stage) start(t *testing.T, name string, programs, env []string, path string, args ...string) *localserver.Process {
	t.Helper()
	config := localserver.Config{Name: name, Path: path, Args: args, Env: append(s.tools(t, programs), env...)}
	if strings.HasPrefix(name, "postgres") {
		config.StopSignal = syscall.SIGINT // as docker-compose.yml says
	}
	p, err := s.home.Start(t.Context(), config)
	must(t, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes[name] = p
	return p
}

// run runs a program to its end.
func (s *stage) run(t *testing.T, name string, programs, env []string, path string, args ...string) {
	t.Helper()
	must(t, s.home.Run(t.Context(), localserver.Config{Name: name, Path: path, Args: args, Env: append(s.tools(t, programs), env...)}))
}

func (s *stage) tools(t *testing.T, programs []string) (env []string) {
	t.Helper()
	folders := os.Getenv("PATH")
	for _, program := range programs {
		path, libraries, err := localserver.Find(program)
		must(t, err)
		folders = filepath.Dir(path) + ":" + folders
		env = append(env, libraries...)
	}
	return append(env, "PATH="+folders)
}

func (s *stage) mkdir(t *testing.T, name string) string {
	t.Helper()
	dir, err := s.home.Mkdir(name)
	must(t, err)
	return dir
}

// await polls until f returns nil, or a process that it needs has ended.
func await(t *testing.T, what string, p *localserver.Process, f func(ctx context.Context) error) {
	t.Helper()
	var ended <-chan struct{}
	if p != nil {
		ended = p.Done()
	}
	deadline := time.Now().Add(3 * time.Minute) // of a machine that has much else to do
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := f(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("waiting for %s: it ended\n%s", what, p.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
	}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644)) //nolint:gosec // servers that are not root read it
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	must(t, err)
	return content
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func listening(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("nobody listens: %w", err)
		}
		return conn.Close()
	}
}
