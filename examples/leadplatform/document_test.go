package main_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/markdown"
)

const document = "../../docs/runbook.md"

// notRun are the words after "sh" that keep a block from being run. A reason follows, after a colon.
var notRun = map[string]bool{
	"cloud":    true, // needs an orchestrator, other hosts or other servers than the demo's
	"terminal": true, // needs somebody who watches; a bounded form is beside it
	"long":     true, // takes minutes; make runbook runs these too
	"node":     true, // needs Node.js and what npm fetches
	"later":    true, // a command that is not there yet
}

// TestRunbookDocument runs every command of docs/runbook.md in order, in one bash, against a running platform, and compares
// what they print with what the document shows. It is here and not beside the document because it needs a platform that is
// built and started, as the other tests of this package do.
func TestRunbookDocument(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "-rate", "10", "-clients", "4") // with the race detector, more is too much for a small machine
	s := p.state(t)
	here := strings.NewReplacer("http://localhost:3000", s.API, "http://localhost:3002", s.Admin)
	shell := newShell(t, p)
	blocks := markdown.Blocks(string(text))
	ran := 0
	for i, block := range blocks {
		if block.Language != "sh" {
			continue
		}
		word, reason, noted := strings.Cut(block.Note, ":")
		if block.Note != "" && (!noted || !notRun[word] || len(strings.Fields(reason)) < 2) {
			t.Errorf("line %d: %q is none of cloud, terminal, long, node and later with a colon and a reason", block.Line, block.Note)
		}
		long := word == "long" && os.Getenv("SCALEAWARE_LONG") != ""
		if block.Note != "" && !long {
			continue
		}
		began := time.Now()
		printed, failure := shell.run(here.Replace(block.Body))
		if failure != "" {
			t.Fatalf("line %d: %s\n%s\nprinted:\n%s", block.Line, failure, block.Body, printed)
		}
		ran++
		if testing.Verbose() {
			t.Logf("line %d, %.1f s:\n%s\n%s", block.Line, time.Since(began).Seconds(), block.Body, printed)
		}
		var shown markdown.Block
		if i+1 < len(blocks) {
			shown = blocks[i+1]
		}
		switch shown.Language {
		case "json":
			err = sameJSON(shown.Body, printed)
		case "text":
			err = sameText(shown.Body, printed)
		default:
			err = nil
			if strings.TrimSpace(printed) != "" && !long {
				err = fmt.Errorf("it prints, and nothing is shown")
			}
		}
		if err != nil {
			t.Errorf("line %d: %v\n%s\nprinted:\n%s", block.Line, err, block.Body, printed)
		}
	}
	if ran < 40 {
		t.Errorf("only %d blocks were run", ran)
	}
}

// requestOf finds what follows each curl, and the method and the path in that.
var (
	requestOf = regexp.MustCompile(`curl ([^|\n]*)`)
	methodOf  = regexp.MustCompile(`-X (\w+)`)
	pathOf    = regexp.MustCompile(`http://localhost(?::\d+)?(/[^\s"'?)]*)`)
)

// TestRunbookHasEveryRequest compares with the requests of the TypeScript runbook.
func TestRunbookHasEveryRequest(t *testing.T) {
	requests := func(path string) map[string]bool {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, m := range requestOf.FindAllStringSubmatch(strings.ReplaceAll(string(text), "\\\n", " "), -1) {
			method := http.MethodGet
			if given := methodOf.FindStringSubmatch(m[1]); given != nil {
				method = given[1]
			}
			if path := pathOf.FindStringSubmatch(m[1]); path != nil {
				found[method+" "+path[1]] = true
			}
		}
		return found
	}
	theirs, ours := requests("testdata/runbook.sh"), requests(document)
	theirs["GET /api/health"] = true // the check of its load balancer
	if len(theirs) != 16 {
		t.Errorf("%d different requests in the runbook, want 16: %v", len(theirs), theirs)
	}
	for request := range theirs {
		if !ours[request] {
			t.Errorf("docs/runbook.md lacks %s", request)
		}
	}
}

// link lets `bin/leadplatform env` of the document find the platform under test.
func link(t *testing.T, p *platform) (bin string) {
	t.Helper()
	bin = filepath.Dir(binary)
	path := filepath.Join(bin, "demo.json")
	if err := os.Symlink(p.path, path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	return bin
}
