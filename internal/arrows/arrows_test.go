package arrows

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/scaleaware/scaleaware"

// room says what a package tree may build on. Everything else is refused, transitively.
type room struct {
	// ours are the trees of this module that it may import; "" is the root package.
	ours []string
	// theirs are the modules from outside that it may name in its own imports.
	theirs []string
}

const (
	clientGolang = "github.com/prometheus/"
	pgx          = "github.com/jackc/pgx/"
	goRedis      = "github.com/redis/go-redis/"
	asynq        = "github.com/hibiken/asynq"
	scs          = "github.com/alexedwards/scs/"
	xsync        = "golang.org/x/"
	cron         = "github.com/robfig/cron/"
)

var house = map[string]room{
	"":                     {},
	"admin":                {},
	"redisclient":          {theirs: []string{goRedis}},
	"metrics":              {ours: []string{"admin"}, theirs: []string{clientGolang, xsync, "google.golang.org/protobuf"}},
	"metrics/redisfleet":   {ours: []string{"metrics", "admin", "redisclient"}, theirs: []string{goRedis}},
	"metrics/pgxmetrics":   {ours: []string{"metrics", "admin"}, theirs: []string{pgx, clientGolang}},
	"metrics/redismetrics": {ours: []string{"metrics", "admin"}, theirs: []string{goRedis, clientGolang}},
	"dbsplit":              {ours: []string{"", "metrics", "admin"}, theirs: []string{pgx, clientGolang, xsync}},
	"cache":                {ours: []string{"", "metrics", "admin", "redisclient"}, theirs: []string{goRedis, clientGolang, xsync, cron, "github.com/maypok86/otter/", "github.com/klauspost/compress/", "github.com/failsafe-go/failsafe-go/"}},
	"cache/protobuf":       {theirs: []string{"google.golang.org/protobuf"}},
	"queue":                {ours: []string{"", "metrics", "admin", "redisclient"}, theirs: []string{asynq, goRedis, pgx, clientGolang, xsync, cron, "github.com/google/uuid"}},
	"queue/scalehook":      {ours: []string{"", "metrics", "admin", "redisclient", "queue"}},
	"session":              {ours: []string{"", "metrics", "admin", "redisclient"}, theirs: []string{scs, goRedis, clientGolang, xsync}},
	"readonly":             {ours: []string{"", "metrics", "admin"}, theirs: []string{clientGolang, xsync}},
	"readonly/pairstore":   {ours: []string{"", "metrics", "admin", "readonly"}},
	"readonly/pgstore":     {ours: []string{"", "metrics", "admin", "readonly"}, theirs: []string{pgx}},
	"readonly/pgwitness":   {ours: []string{"", "metrics", "admin", "readonly"}, theirs: []string{pgx}},
	"readonly/redisstore":  {ours: []string{"", "metrics", "admin", "readonly", "redisclient"}, theirs: []string{goRedis}},
}

// free trees may import anything: programs, tests' servers, and commands.
var free = []string{"examples", "internal", "metrics/cmd"}

type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
	Module     struct{ Path string }
}

func TestArrowsPointOneWay(t *testing.T) {
	pkgs := list(t)
	seen := map[string]bool{}
	for _, p := range pkgs {
		path, ours := strings.CutPrefix(p.ImportPath, module)
		path = strings.TrimPrefix(path, "/")
		if !ours || within(path, free) {
			continue
		}
		name, r, ok := roomOf(path)
		if !ok {
			t.Errorf("%s is in no room: add it to the house in this test, after thinking where it belongs", p.ImportPath)
			continue
		}
		seen[name] = true
		for _, dep := range p.Deps {
			if d, ok := strings.CutPrefix(dep, module); ok {
				d = strings.TrimPrefix(d, "/")
				if owner, _, _ := roomOf(d); owner != name && !slices.Contains(r.ours, owner) || within(d, free) {
					t.Errorf("%s imports %s: no arrow goes there", p.ImportPath, dep)
				}
			}
		}
		for _, imp := range p.Imports {
			first, _, _ := strings.Cut(imp, "/")
			outside := strings.Contains(first, ".") && !strings.HasPrefix(imp, module)
			if outside && !slices.ContainsFunc(r.theirs, func(prefix string) bool { return strings.HasPrefix(imp+"/", prefix) }) {
				t.Errorf("%s imports %s: a dependency that its room does not have", p.ImportPath, imp)
			}
		}
	}
	for name := range house {
		if !seen[name] {
			t.Errorf("room %q has no package", name)
		}
	}
}

// roomOf finds the longest room that a path lies in.
func roomOf(path string) (name string, r room, ok bool) {
	for n, candidate := range house {
		if (n == path || n != "" && strings.HasPrefix(path, n+"/")) && (!ok || len(n) > len(name)) {
			name, r, ok = n, candidate, true
		}
	}
	return name, r, ok
}

func within(path string, trees []string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool { return path == tree || strings.HasPrefix(path, tree+"/") })
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps,Module", module+"/...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return pkgs
		case err != nil:
			t.Fatal(err)
		case !p.Standard:
			pkgs = append(pkgs, p)
		}
	}
}
