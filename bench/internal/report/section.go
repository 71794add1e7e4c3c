package report

import (
	"fmt"
	"strings"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
)

// Section is what was measured of one package.
type Section struct {
	Package string
	// Facts are lines about the run: the machine, versions, the command.
	Facts  []string
	Tables []Table
}

// Table is one subject.
type Table struct {
	Title string
	// Note says how it was measured, and what is compared.
	Note string
	Rows []Row
}

// Row is one comparison, already in words. An empty field is written as a dash.
type Row struct {
	What, Goal, Peer, Ours, Ratio string
	Met                           Verdict
}

// Verdict says whether a goal is met.
type Verdict string

// The verdicts. Unclear means that the noise of this run does not let us tell.
const (
	NoGoal  Verdict = ""
	Met     Verdict = "yes"
	Missed  Verdict = "**no**"
	Unclear Verdict = "unclear"
)

// AtMost judges a figure that shall not exceed limit.
func AtMost(figure, limit float64) Verdict {
	if figure <= limit {
		return Met
	}
	return Missed
}

// AtLeast judges a figure that shall reach limit.
func AtLeast(figure, limit float64) Verdict { return AtMost(-figure, -limit) }

// MedianAtMost judges a median that was estimated: Unclear when limit lies within its confidence interval.
func MedianAtMost(s pairs.Spread, limit float64) Verdict {
	switch {
	case s.N == 0:
		return Unclear
	case s.High <= limit:
		return Met
	case s.Low > limit:
		return Missed
	}
	return Unclear
}

// All is the verdict on several figures of one goal.
func All(verdicts ...Verdict) Verdict {
	all := NoGoal
	for _, v := range verdicts {
		switch {
		case v == Missed || all == Missed:
			all = Missed
		case v == Unclear || all == Unclear:
			all = Unclear
		case v != NoGoal:
			all = v
		}
	}
	return all
}

func (s Section) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n## %s\n\n", opening(s.Package), s.Package)
	for _, f := range s.Facts {
		fmt.Fprintf(&b, "- %s\n", f)
	}
	for _, t := range s.Tables {
		b.WriteByte('\n')
		b.WriteString(t.Markdown())
	}
	fmt.Fprintf(&b, "\n%s\n", closing(s.Package))
	return b.String()
}

// Markdown is the table with its title and note.
func (t Table) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", t.Title)
	if t.Note != "" {
		fmt.Fprintf(&b, "%s\n\n", t.Note)
	}
	b.WriteString("| what | goal | peer | ours | ratio | met |\n|---|---|---|---|---|---|\n")
	for _, r := range t.Rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n",
			cell(r.What), cell(r.Goal), cell(r.Peer), cell(r.Ours), cell(r.Ratio), cell(string(r.Met)))
	}
	return b.String()
}

func cell(text string) string {
	if text == "" {
		return "–"
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, "|", `\|`), "\n", " ")
}
