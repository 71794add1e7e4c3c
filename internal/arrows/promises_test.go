package arrows

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	namedTest = regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)[A-Z]\\w*)`")
	madeTest  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w+)\(`)
)

// promises are the documents whose every row of a table names a test, with the least number of rows that they have.
var promises = map[string]int{"faults.md": 30, "consistency.md": 40}

// Tests that documents name exist, and promises name some.
func TestPromisesAreShown(t *testing.T) {
	made := map[string]bool{}
	eachGoFile(t, func(path string, src []byte) {
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range madeTest.FindAllSubmatch(src, -1) {
				made[string(m[1])] = true
			}
		}
	})
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range documents {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		document := filepath.Base(path)
		least, promising := promises[document]
		if promising {
			found++
		}
		rows := 0
		for line := range strings.Lines(string(text)) {
			names := namedTest.FindAllStringSubmatch(line, -1)
			for _, name := range names {
				if !made[name[1]] {
					t.Errorf("docs/%s names %s, which does not exist", document, name[1])
				}
			}
			if !promising || !strings.HasPrefix(line, "| ") || strings.Contains(line, "Shown by") || strings.Contains(line, "Proven by") {
				continue
			}
			rows++
			if len(names) == 0 {
				t.Errorf("docs/%s names no test in: %s", document, line)
			}
		}
		if rows < least {
			t.Errorf("only %d rows were found in docs/%s", rows, document)
		}
	}
	if found != len(promises) {
		t.Errorf("%d of %d documents were found", found, len(promises))
	}
}
