package manifests

import (
	"bytes"
	"encoding/json"
	"go/version"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

func stages(t *testing.T) []instructions.Stage {
	t.Helper()
	tree, err := parser.Parse(bytes.NewReader(read(t, filepath.Join(deployDir, "Dockerfile"))))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Warnings) > 0 {
		t.Errorf("warnings: %v", tree.Warnings)
	}
	parsed, _, err := instructions.Parse(tree.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

var goImage = regexp.MustCompile(`^golang:(\d+\.\d+\.\d+)-`)

func TestDockerfile(t *testing.T) {
	all := stages(t)
	build, final := all[0], all[len(all)-1]
	if m := goImage.FindStringSubmatch(build.BaseName); m == nil || version.Compare("go"+m[1], "go"+goDirective(t)) < 0 {
		t.Errorf("the build's image is %s, go.mod needs Go %s", build.BaseName, goDirective(t))
	}
	if final.BaseName != "scratch" {
		t.Errorf("the last stage is from %s", final.BaseName)
	}
	ignored := ignores(t)
	static, user := false, ""
	for _, stage := range all {
		for _, command := range stage.Commands {
			switch c := command.(type) {
			case *instructions.EnvCommand:
				for _, pair := range c.Env {
					static = static || pair.Key == "CGO_ENABLED" && pair.Value == "0"
				}
			case *instructions.UserCommand:
				user = c.User
			case *instructions.CopyCommand:
				copies(t, c, all, ignored)
			}
		}
	}
	if !static {
		t.Error("the programs are not static: CGO_ENABLED is not 0")
	}
	if uid, _, _ := strings.Cut(user, ":"); uid == "" || uid == "0" || uid == "root" {
		t.Errorf("the image runs as %q", user)
	}
	for _, target := range buildTargets(t) {
		if out, err := goList(t, "-f", "{{.Name}}", target); err != nil || strings.TrimSpace(out) != "main" {
			t.Errorf("the build's target %s: %q, %v", target, out, err)
		}
		if name := path.Base(target); !slices.Contains(programsOfImage(t), "/usr/local/bin/"+name) {
			t.Errorf("%s is built and not copied into the image", target)
		}
	}
}

// copies checks that what is copied exists: in the context, where nothing ignores it, or among what a stage makes.
func copies(t *testing.T, c *instructions.CopyCommand, all []instructions.Stage, ignored *patternmatcher.PatternMatcher) {
	t.Helper()
	if c.From != "" {
		if !slices.ContainsFunc(all, func(s instructions.Stage) bool { return s.Name == c.From }) {
			t.Errorf("%s: there is no stage %s", c, c.From)
		}
		return
	}
	for _, source := range c.SourcePaths {
		if _, err := os.Stat(filepath.Join(rootDir, source)); err != nil {
			t.Errorf("%s: %v", c, err)
		}
		if skip, err := ignored.MatchesOrParentMatches(source); err != nil || skip {
			t.Errorf("%s: %s is ignored, %v", c, source, err)
		}
	}
}

// TestDockerIgnore sees that nothing is ignored that the programs are made of, and tests and secrets are.
func TestDockerIgnore(t *testing.T) {
	ignored := ignores(t)
	out, err := goList(t, append([]string{"-deps", "-json=Dir,Module,Standard,GoFiles,EmbedFiles"}, buildTargets(t)...)...)
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs(rootDir)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for decoder := json.NewDecoder(strings.NewReader(out)); decoder.More(); {
		var p struct {
			Dir                 string
			Standard            bool
			GoFiles, EmbedFiles []string
		}
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		dir, err := filepath.Rel(root, p.Dir)
		if err != nil || p.Standard || strings.HasPrefix(dir, "..") {
			continue
		}
		for _, name := range slices.Concat(p.GoFiles, p.EmbedFiles) {
			files++
			if skip, err := ignored.MatchesOrParentMatches(filepath.Join(dir, name)); err != nil || skip {
				t.Errorf("%s/%s is needed and ignored, %v", dir, name, err)
			}
		}
	}
	if files < 100 {
		t.Errorf("only %d files were looked at", files)
	}
	for _, name := range []string{"examples/deploy/secrets/admin_token", "admin/audit_test.go", "metrics/testdata/rules.golden.yml", ".git/config"} {
		if skip, err := ignored.MatchesOrParentMatches(name); err != nil || !skip {
			t.Errorf("%s is sent to the build, %v", name, err)
		}
	}
}

func ignores(t *testing.T) *patternmatcher.PatternMatcher {
	t.Helper()
	patterns, err := ignorefile.ReadAll(bytes.NewReader(read(t, filepath.Join(deployDir, "Dockerfile.dockerignore"))))
	if err != nil {
		t.Fatal(err)
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return matcher
}

// buildTargets are the packages that the Dockerfile builds.
func buildTargets(t *testing.T) (targets []string) {
	t.Helper()
	for _, command := range stages(t)[0].Commands {
		if run, ok := command.(*instructions.RunCommand); ok && strings.HasPrefix(strings.Join(run.CmdLine, " "), "go build") {
			for _, word := range strings.Fields(strings.Join(run.CmdLine, " ")) {
				if strings.HasPrefix(word, "./") {
					targets = append(targets, word)
				}
			}
		}
	}
	if len(targets) == 0 {
		t.Fatal("the Dockerfile builds nothing")
	}
	return targets
}

// programsOfImage are the paths of the programs in the image.
func programsOfImage(t *testing.T) (paths []string) {
	t.Helper()
	all := stages(t)
	for _, command := range all[len(all)-1].Commands {
		if c, ok := command.(*instructions.CopyCommand); ok {
			for _, source := range c.SourcePaths {
				paths = append(paths, path.Join(c.DestPath, path.Base(source)))
			}
		}
	}
	return paths
}

func goDirective(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(string(read(t, filepath.Join(rootDir, "go.mod")))) {
		if v, ok := strings.CutPrefix(line, "go "); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatal("go.mod has no go directive")
	return ""
}

func goList(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = rootDir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return string(out), err
}
