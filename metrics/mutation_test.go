package metrics

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// mutant is a row, or the text of its rules, with one mistake.
type mutant struct {
	what  string
	row   KeyMetric // the right one
	table Table     // with the wrong one
	text  func(string) string
}

// mutants are all that are generated of a row: every field, and every part of an expression.
func mutants(m KeyMetric) (list []mutant) {
	change := func(what string, f func(*KeyMetric)) {
		table := KeyMetrics()
		for i := range table.Rows {
			if table.Rows[i].ID == m.ID {
				f(&table.Rows[i])
			}
		}
		list = append(list, mutant{what: m.ID + ": " + what, row: m, table: table})
	}
	for _, factor := range []float64{.5, .98, 1.02, 2} {
		change(fmt.Sprintf("warning × %g", factor), func(m *KeyMetric) { m.Warning *= factor })
		change(fmt.Sprintf("critical × %g", factor), func(m *KeyMetric) { m.Critical *= factor })
	}
	for _, more := range []time.Duration{-promTick, promTick} {
		change(fmt.Sprintf("warning for %v more", more), func(m *KeyMetric) { m.WarningFor += more })
		change(fmt.Sprintf("critical for %v more", more), func(m *KeyMetric) { m.CriticalFor += more })
		change(fmt.Sprintf("keeps firing for %v more", more), func(m *KeyMetric) { m.KeepFiringFor += more })
	}
	change("op", func(m *KeyMetric) { m.Op = 1 - m.Op })
	change("warning and critical change places", func(m *KeyMetric) { m.Warning, m.Critical = m.Critical, m.Warning })
	for s := Quantile; s <= Age; s++ {
		if s != m.Statistic {
			change(fmt.Sprintf("statistic %d", s), func(m *KeyMetric) { m.Statistic = s })
		}
	}
	change("param", func(m *KeyMetric) { m.Param *= .9 })
	change("label", func(m *KeyMetric) { m.Label = "lable" })
	if m.Label != "" {
		change("value", func(m *KeyMetric) { m.Value += "x" })
		change("not", func(m *KeyMetric) { m.Not = !m.Not })
		change("no label", func(m *KeyMetric) { m.Label = "" })
	}
	if len(m.Among) > 0 {
		change("among all", func(m *KeyMetric) { m.Among = nil })
		change("among itself", func(m *KeyMetric) { m.Among = []string{m.Value} })
	}
	if len(m.Scope) > 0 {
		change("no scope", func(m *KeyMetric) { m.Scope = nil })
	}
	change("scope", func(m *KeyMetric) { m.Scope = []string{"job"} })
	change("series", func(m *KeyMetric) {
		m.Series = map[Kind]Series{Counter: QueueEnqueued, Gauge: QueueOldestPending, Histogram: DBPoolAcquireTime}[m.Series.Kind]
	})
	if m.Of.Name != "" {
		change("of", func(m *KeyMetric) { m.Of = m.Series })
	}
	if m.Unless != "" {
		change("unless", func(m *KeyMetric) { m.Unless = "" })
	}
	change("min events", func(m *KeyMetric) { m.MinEvents = 1e9 })
	change("record", func(m *KeyMetric) { m.Record = "sampler_age_seconds" })
	change("alert", func(m *KeyMetric) { m.Alert += "s" })
	change("id", func(m *KeyMetric) { m.ID += "s" })
	rules := string(Table{Rows: []KeyMetric{m}}.Rules())
	for _, pair := range [][2]string{
		{"rate(", "increase("}, {"sum", "max"}, {"max", "min"}, {"max", "sum"}, {"[5m]", "[4m]"}, {"[5m]", "[6m]"}, {" / ", " * "}, {" - ", " + "}, {"60 *", "30 *"},
		{"_count", "_sum"}, {"_bucket", "_count"}, {`="`, `!="`}, {`!="`, `="`}, {"le)", "code)"}, {"histogram_quantile(0.95", "histogram_quantile(0.94"}, {" or 0 *", " or 1 *"}, {"severity: warning", "severity: critical"},
		{"time()", "1000"}, {"unless (", "and ("},
	} {
		if pair[0] == "rate(" && m.Statistic == Quantile {
			continue // the quantile of increases is the same
		}
		if strings.Contains(rules, pair[0]) {
			list = append(list, mutant{what: m.ID + ": " + pair[0] + " becomes " + pair[1], row: m, table: KeyMetrics(), text: func(s string) string { return strings.Replace(s, pair[0], pair[1], 1) }})
		}
	}
	return list
}

// caught is how many of a hundred generated mistakes in the table the audit and promtool's tests must find, apart from
// the golden files, which find all.
const caught = .95

func TestMutationsOfTheTableAreCaught(t *testing.T) {
	promPath, env, err := localserver.Find("promtool")
	if err != nil && os.Getenv("SCALEAWARE_REQUIRE_SERVERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []mutant
	for _, m := range KeyMetrics().Rows {
		if m.HasThresholds() {
			all = append(all, mutants(m)...)
		}
	}
	total, byAudit := len(all), 0
	var rest []mutant
	for _, m := range all {
		if m.text == nil && m.table.Audit() != nil {
			byAudit++
		} else {
			rest = append(rest, m)
		}
	}
	// promtool takes a while for each, so that of what the audit lets pass a share is drawn; make mutate draws more.
	outside := len(rest)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	drawn := 16
	if n, err := strconv.Atoi(os.Getenv("SCALEAWARE_MUTANTS")); err == nil {
		drawn = n
	}
	rest = rest[:min(len(rest), drawn)]
	dir := t.TempDir()
	args := []string{"test", "rules"}
	files := make([]string, len(rest))
	for i, m := range rest {
		table := m.table
		table.Rows = nil
		for j, row := range m.table.Rows {
			if id := KeyMetrics().Rows[j].ID; id == m.row.ID || id == m.row.Unless {
				table.Rows = append(table.Rows, row)
			}
		}
		text := string(table.Rules())
		if m.text != nil {
			text = m.text(text)
		}
		path := filepath.Join(dir, fmt.Sprintf("%d.rules.yml", i))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		tests, _ := m.row.promTests()
		files[i] = writePromTests(t, tests, path)
		args = append(args, files[i])
	}
	cmd := exec.CommandContext(t.Context(), promPath, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // it fails when one does; each is looked at
	survived := 0
	for i, m := range rest {
		_, report, ok := strings.Cut(out.String(), files[i]+"\n")
		if !ok {
			t.Fatalf("promtool says nothing of %s: %.1000s", m.what, out.String())
		}
		if strings.HasPrefix(strings.TrimSpace(report), "SUCCESS") {
			survived++
			t.Logf("survived: %s", m.what)
		}
	}
	share := (float64(byAudit) + float64(outside)*float64(len(rest)-survived)/float64(len(rest))) / float64(total)
	t.Logf("%d mutants, %d caught by the audit, of %d drawn from the others %d by promtool's tests: %.1f %% of all", total, byAudit, len(rest), len(rest)-survived, 100*share)
	if share < caught {
		t.Errorf("only %.1f %% were caught", 100*share)
	}
}
