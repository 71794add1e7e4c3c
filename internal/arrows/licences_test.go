package arrows

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	licenceRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\|$")
	permissive = map[string]bool{"Apache-2.0": true, "MIT": true, "BSD-2-Clause": true, "BSD-3-Clause": true, "ISC": true}
)

// docs/licences.md lists each module that users of the packages compile, and no other.
func TestLicencesAreListed(t *testing.T) {
	text, err := os.ReadFile("../../docs/licences.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, row := range licenceRow.FindAllStringSubmatch(string(text), -1) {
		listed[row[1]] = true
		for licence := range strings.SplitSeq(row[2], ", ") {
			if !permissive[licence] {
				t.Errorf("%s is under %s: may users of a library have that?", row[1], licence)
			}
		}
	}
	pkgs := map[string]pkg{}
	all := list(t)
	for _, p := range all {
		pkgs[p.ImportPath] = p
	}
	used := map[string]bool{}
	for _, p := range all {
		path, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours || within(strings.TrimPrefix(path, "/"), free) {
			continue
		}
		for _, dep := range append(p.Deps, p.ImportPath) {
			if m := pkgs[dep].Module.Path; m != "" && m != module {
				used[m] = true
			}
		}
	}
	if len(used) < 10 {
		t.Fatalf("only %d modules were found", len(used))
	}
	for m := range used {
		if !listed[m] {
			t.Errorf("docs/licences.md misses %s", m)
		}
	}
	for m := range listed {
		if !used[m] {
			t.Errorf("docs/licences.md lists %s, which no package uses", m)
		}
	}
}
