package arrows

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	fence    = regexp.MustCompile("(?s)\n```.*?\n```")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	makeLine = regexp.MustCompile("(?m)(?:^|`)make ([a-z][a-z-]*)")
	target   = regexp.MustCompile(`(?m)^([a-z-]+):`)
)

// Documents name what there is: each link leads to a file and a heading, each test exists, each make target too.
func TestDocumentsNameWhatExists(t *testing.T) {
	house := os.DirFS("../..")
	makefile, err := fs.ReadFile(house, "Makefile")
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range target.FindAllSubmatch(makefile, -1) {
		targets[string(m[1])] = true
	}
	made := tests(t)
	links := 0
	eachDocument(t, house, func(name, text string) {
		for _, m := range makeLine.FindAllStringSubmatch(text, -1) {
			if !targets[m[1]] {
				t.Errorf("%s names make %s, which the Makefile has not", name, m[1])
			}
		}
		for _, m := range namedTest.FindAllStringSubmatch(text, -1) {
			if !made[m[1]] {
				t.Errorf("%s names %s, which does not exist", name, m[1])
			}
		}
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			links++
			if reason := dead(house, name, m[1]); reason != "" {
				t.Errorf("%s links to %s: %s", name, m[1], reason)
			}
		}
	})
	if links < 20 {
		t.Errorf("only %d links were found", links)
	}
}

// dead says why a link of a document leads nowhere, or nothing.
func dead(house fs.FS, document, to string) string {
	file, anchor, _ := strings.Cut(to, "#")
	name := document
	if file != "" {
		name = path.Join(path.Dir(document), file)
	}
	info, err := fs.Stat(house, name)
	if err != nil {
		return "there is no such file"
	}
	if anchor == "" {
		return ""
	}
	if info.IsDir() || path.Ext(name) != ".md" {
		return "only documents have headings"
	}
	text, err := fs.ReadFile(house, name)
	if err != nil {
		return err.Error()
	}
	for _, m := range heading.FindAllSubmatch(fence.ReplaceAll(text, nil), -1) {
		if slug(string(m[1])) == anchor {
			return ""
		}
	}
	return "there is no such heading"
}

// slug is the anchor that GitHub gives a heading.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

func eachDocument(t *testing.T, house fs.FS, visit func(name, text string)) {
	t.Helper()
	err := fs.WalkDir(house, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (name != "." && strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules" || name == "bin") {
			return fs.SkipDir
		}
		if path.Ext(name) != ".md" {
			return nil
		}
		text, err := fs.ReadFile(house, name)
		if err == nil {
			visit(name, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
