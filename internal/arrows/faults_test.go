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

// docs/faults.md promises tests: each of them exists, and each row of its tables names one.
func TestFaultsAreShown(t *testing.T) {
	text, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	made := tests(t)
	rows := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") || strings.Contains(line, "Shown by") {
			continue
		}
		rows++
		names := namedTest.FindAllStringSubmatch(line, -1)
		if len(names) == 0 {
			t.Errorf("docs/faults.md names no test in: %s", line)
		}
		for _, name := range names {
			if !made[name[1]] {
				t.Errorf("docs/faults.md names %s, which does not exist", name[1])
			}
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
