package doccode

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/internal/markdown"
)

// plain makes one line a statement whatever its indentation.
func plain(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// TestShownCodeCompiles takes the documents' blocks of Go one by one. Those of packages' documentation are checked by vet.
func TestShownCodeCompiles(t *testing.T) {
	var code strings.Builder
	var documents []string
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != "." && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		switch filepath.Ext(path) {
		case ".go":
			text, err := fs.ReadFile(root, path)
			if err != nil {
				return err
			}
			code.WriteString("\n" + plain(string(text)))
		case ".md":
			if filepath.Dir(path) == "docs" {
				documents = append(documents, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all, blocks := code.String(), 0
	for _, path := range documents {
		text, err := fs.ReadFile(root, path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range markdown.Blocks(string(text)) {
			if block.Language != "go" {
				continue
			}
			blocks++
			if !strings.Contains(all, "\n"+plain(block.Body)) {
				t.Errorf("%s:%d: this is in no Go file, so nobody knows whether it compiles:\n%s", path, block.Line, block.Body)
			}
		}
	}
	if blocks < 20 {
		t.Errorf("only %d blocks were found", blocks)
	}
}
