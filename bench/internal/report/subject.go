package report

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"time"
)

// Subject is a table to be measured.
type Subject struct {
	Title, Note string
	Rows        func(context.Context) ([]Row, error)
}

// Measure measures one subject after the other, those whose titles only matches if that is not nil, and says on standard
// error how long each took. The first error ends it.
func Measure(ctx context.Context, only *regexp.Regexp, subjects ...Subject) (tables []Table, err error) {
	for _, s := range subjects {
		if only != nil && !only.MatchString(s.Title) {
			continue
		}
		begun := time.Now()
		rows, err := s.Rows(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Title, err)
		}
		fmt.Fprintf(os.Stderr, "%s: measured in %s\n", s.Title, Since(time.Since(begun)))
		tables = append(tables, Table{Title: s.Title, Note: s.Note, Rows: rows})
	}
	return tables, nil
}
