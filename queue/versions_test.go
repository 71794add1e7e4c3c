package queue

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAsynqVersions compiles a worker with other versions of asynq: with the last two before ours, which fetch in the same way, given what
// they lack of ours, and with some of the future, which are ours with changes. Where the gate does not know the fetch, the worker refuses and no job has run past
// the limit. It compiles for a minute, so it wants SCALEAWARE_VERSIONS=1.
func TestAsynqVersions(t *testing.T) {
	if os.Getenv("SCALEAWARE_VERSIONS") == "" {
		t.Skip("SCALEAWARE_VERSIONS is not set: make asynq-versions")
	}
	const (
		script = "dequeueCmd.Run(context.Background(), r.client, keys, argv...).Result()"
		last   = "base.LeaseKey(qname),\n\t\t}\n\t\tleaseExpirationTime"
	)
	for _, c := range []struct {
		name, version string
		file          string // that is changed, by default internal/rdb/rdb.go
		old, new      string // in it
		add           string // a file beside its own
		refused       string // part of the reason; "" for none
	}{
		{name: "the one before ours", version: "v0.25.1", add: `package asynq

import "errors"
` + lacking},
		{name: "the second one before ours", version: "v0.24.1", file: "server.go", old: "\tHealthCheckInterval time.Duration\n", new: "\tHealthCheckInterval, TaskCheckInterval time.Duration\n", add: `package asynq

import (
	"errors"

	"github.com/redis/go-redis/v9"
)

var RevokeTask = errors.New("revoke task")

type given struct{ redis.UniversalClient }

func (g given) MakeRedisClient() interface{} { return g.UniversalClient }

func NewServerFromRedisClient(c redis.UniversalClient, cfg Config) *Server { return NewServer(given{c}, cfg) }
func NewClientFromRedisClient(c redis.UniversalClient) *Client             { return NewClient(given{c}) }
func NewInspectorFromRedisClient(c redis.UniversalClient) *Inspector       { return NewInspector(given{c}) }
` + lacking},
		{name: "ours"},
		{name: "one more key", old: last, new: "base.LeaseKey(qname), base.ProcessedTotalKey(qname),\n\t\t}\n\t\tleaseExpirationTime", refused: "has keys"},
		{name: "one more argument", old: "argv...).Result()\n\t\tif err == redis.Nil", new: "append(argv, 1)...).Result()\n\t\tif err == redis.Nil", refused: "has keys"},
		{name: "keys in another order", old: script, new: strings.Replace(script, "keys,", "[]string{keys[0], keys[2], keys[3], keys[1]},", 1), refused: "has keys"},
		{name: "another prefix of keys", old: script, new: strings.Replace(script, "keys,", `[]string{keys[0], keys[1], keys[2], "lease:" + keys[3]},`, 1), refused: "has keys"},
		{name: "another method of the client", old: script, new: "func() (any, error) {\n" +
			"dequeueCmd.Load(context.Background(), r.client)\n" +
			"return r.client.Do(context.Background(), `EVALSHA`, dequeueCmd.Hash(), 4, keys[0], keys[1], keys[2], keys[3], argv[0], argv[1]).Result()\n" +
			"}()", refused: "came past"},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := gated(t, c.version, func(source string) {
				if c.add != "" {
					write(t, filepath.Join(source, "added.go"), c.add)
				}
				if c.old != "" {
					change(t, filepath.Join(source, cmp.Or(c.file, "internal/rdb/rdb.go")), c.old, c.new)
				}
			})
			for _, limit := range [][]string{nil, {"set"}} { // declared, or at run time
				try(t, program, limit, c.refused)
			}
		})
	}
}

// lacking is what asynq has only since ours.
const lacking = `
var ErrHandlerNotFound = errors.New("handler not found for task")

func (t *Task) Headers() map[string]string { return nil }

func NewTaskWithHeaders(typename string, payload []byte, _ map[string]string, opts ...Option) *Task {
	return NewTask(typename, payload, opts...)
}
`

func try(t *testing.T, program string, limit []string, refused string) {
	t.Helper()
	answer, err := exec.Command(program, append([]string{single.Get(t).Addrs()[0], fresh("version")}, limit...)...).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr(err))
	}
	var got struct {
		Ran     int64
		Refused bool
		Why     string
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d jobs ran; %s", got.Ran, got.Why)
	switch {
	case refused == "" && (got.Ran != 2 || got.Why != ""):
		t.Errorf("%d jobs ran, want the 2 of the limit; %s", got.Ran, got.Why)
	case refused != "" && (got.Ran != 0 || !got.Refused || !strings.Contains(got.Why, refused)):
		t.Errorf("%d jobs ran, refused %v: %s; want none, and a reason with %q", got.Ran, got.Refused, got.Why, refused)
	}
}

// gated compiles internal/gated with a copy of a version of asynq, by default ours, that edit may change.
func gated(t *testing.T, version string, edit func(source string)) (program string) {
	t.Helper()
	dir := t.TempDir()
	of := "github.com/hibiken/asynq"
	if version == "" {
		version = strings.TrimSpace(output(t, "go", "list", "-m", "-f", "{{.Version}}", of))
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(output(t, "go", "mod", "download", "-json", of+"@"+version)), &module); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(dir, "asynq")
	if err := os.CopyFS(source, os.DirFS(module.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(source, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chmod(path, 0o755)) // the module cache is read-only
	}); err != nil {
		t.Fatal(err)
	}
	edit(source)
	modfile := filepath.Join(dir, "go.mod")
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(text))
	}
	output(t, "go", "mod", "edit", "-replace", of+"="+source, modfile)
	program = filepath.Join(dir, "gated")
	output(t, "go", "build", "-modfile", modfile, "-mod=mod", "-o", program, "../internal/gated")
	return program
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr(err))
	}
	return string(out)
}

func stderr(err error) string {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(exit.Stderr)
	}
	return ""
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// change replaces what is in the file exactly once.
func change(t *testing.T, file, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), old); n != 1 {
		t.Fatalf("%s has %q %d times", file, old, n)
	}
	write(t, file, strings.Replace(string(text), old, replacement, 1))
}
