package arrows

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest = regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)[A-Z]\\w*)`")
	madeTest  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w+)\(`)
)

// docs/faults.md, docs/security.md and docs/consistency.md promise tests: each row of their tables names one. That they exist, TestDocumentsNameWhatExists sees.
func TestFaultsAreShown(t *testing.T) {
	for _, name := range []string{"faults.md", "security.md", "consistency.md"} {
		namesTests(t, name)
	}
}

func namesTests(t *testing.T, document string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + document)
	if err != nil {
		t.Fatal(err)
	}
	rows, inTable := 0, false
	for line := range strings.Lines(string(text)) {
		if strings.Contains(strings.ToLower(line), "shown by") {
			inTable = true // and so are all tables after it
			continue
		}
		if !inTable || !strings.HasPrefix(line, "| ") {
			continue
		}
		rows++
		if !namedTest.MatchString(line) {
			t.Errorf("docs/%s names no test in: %s", document, line)
		}
	}
	if rows < 30 {
		t.Errorf("only %d rows were found", rows)
	}
}

// tests are the names of all tests, fuzz targets, benchmarks and examples of the house.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	made := map[string]bool{}
	eachGoFile(t, func(path string, src []byte) {
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range madeTest.FindAllSubmatch(src, -1) {
				made[string(m[1])] = true
			}
		}
	})
	return made
}
