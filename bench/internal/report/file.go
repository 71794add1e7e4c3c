package report

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

const preamble = `# Results

Written by ` + "`make bench`" + `: do not edit. Times are medians with the quartiles in brackets. Ratios are medians of the ratios of
neighbouring rounds, with the 95 % confidence interval of that median in brackets. A goal is "unclear" when it lies within
the interval: the noise of that run does not let us tell.
`

func opening(pkg string) string { return "<!-- begin " + pkg + " -->" }
func closing(pkg string) string { return "<!-- end " + pkg + " -->" }

// Update replaces the section of s.Package in the file, or adds it. A file that is missing is made.
func (s Section) Update(file string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("report: %w", err)
	}
	text, err := s.replace(string(old))
	if err != nil {
		return fmt.Errorf("report: %s: %w", file, err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func (s Section) replace(old string) (string, error) {
	if old == "" {
		old = preamble
	}
	begin := strings.Index(old, opening(s.Package))
	end := strings.Index(old, closing(s.Package)+"\n")
	switch {
	case begin < 0 && end < 0:
		return strings.TrimRight(old, "\n") + "\n\n" + s.markdown(), nil
	case begin < 0 || end < begin:
		return "", fmt.Errorf("the section %s begins or ends nowhere: repair or remove it", s.Package)
	}
	return old[:begin] + s.markdown() + old[end+len(closing(s.Package))+1:], nil
}
