package replicasafe

import (
	"cmp"
	"slices"
	"strings"
)

// Judge decides what is wrong with what was seen, in a fixed order.
func Judge(o Observation) []Finding {
	j := judge{o: o, seen: map[Finding]bool{}}
	if o.Failed != nil {
		j.add(ruleFails, o.Failed.Error(), "")
		return j.findings
	}
	j.locks()
	j.tables()
	j.wayBack()
	slices.SortStableFunc(j.findings, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Rule.Name, b.Rule.Name), strings.Compare(a.Object, b.Object))
	})
	return j.findings
}

type judge struct {
	o        Observation
	findings []Finding
	seen     map[Finding]bool // without the statement: the first one counts
}

func (j *judge) add(r Rule, object, statement string) {
	f := Finding{Migration: j.o.Migration, Rule: r, Object: object}
	if j.seen[f] {
		return
	}
	j.seen[f] = true
	f.Statement = statement
	j.findings = append(j.findings, f)
}

// locks judges what was held on tables that others may be using: those that were there before.
func (j *judge) locks() {
	indexed := j.newIndexes()
	exclusive := map[uint32]bool{} // which is worse than SHARE, and told of already
	for _, s := range j.o.Statements {
		for _, l := range s.Locks {
			table, old := j.o.Before.Tables[l.Table]
			if !old {
				continue
			}
			_, share := stopsWrites[l.Mode]
			switch {
			case l.Mode == accessExclusive:
				exclusive[l.Table] = true
				j.add(ruleAccessExclusive, table.Name, s.SQL)
			case share && len(indexed[l.Table]) > 0 && table.Kind != partitioned:
				for _, index := range indexed[l.Table] {
					j.add(ruleIndex, index, s.SQL)
				}
			case share && exclusive[l.Table]:
			case share && table.Kind != partitioned: // that one has no rows, so nothing under the lock takes long
				j.add(ruleShare, table.Name, s.SQL)
			case !share:
				continue
			}
			if s.LockTimeout == "0" {
				j.add(ruleLockTimeout, table.Name, s.SQL)
			}
		}
	}
}

// newIndexes are by the table that they are on.
func (j *judge) newIndexes() map[uint32][]string {
	out := map[uint32][]string{}
	for oid, index := range j.o.After.Indexes {
		if _, old := j.o.Before.Indexes[oid]; !old {
			out[index.Table] = append(out[index.Table], index.Name)
		}
	}
	return out
}

func (j *judge) tables() {
	for oid, after := range j.o.After.Tables {
		before, old := j.o.Before.Tables[oid]
		if after.Unlogged && !before.Unlogged {
			j.add(ruleUnlogged, after.Name, "")
		}
		if old && after.File != before.File && strings.Contains(hasRows, after.Kind) {
			j.add(ruleRewrite, after.Name, "")
		}
	}
	for oid, before := range j.o.Before.Tables {
		after, still := j.o.After.Tables[oid]
		if !still || after.Name != before.Name {
			j.add(ruleTableGone, before.Name, "")
		}
		if still {
			j.columns(before, after)
		}
	}
}

func (j *judge) columns(before, after Table) {
	for number, was := range before.Columns {
		is, still := after.Columns[number]
		name := before.Name + "." + was.Name
		switch {
		case !still || is.Name != was.Name:
			j.add(ruleColumnGone, name, "")
		case is.Type != was.Type:
			j.add(ruleColumnType, name, "")
		case is.NotNull && !was.NotNull && !is.HasDefault:
			j.add(ruleColumnRequired, name, "")
		}
	}
	for number, is := range after.Columns {
		if _, old := before.Columns[number]; !old && is.NotNull && !is.HasDefault {
			j.add(ruleColumnRequired, after.Name+"."+is.Name, "")
		}
	}
}

func (j *judge) wayBack() {
	switch {
	case j.o.NoDown:
		j.add(ruleNoDown, j.o.Migration, "")
	case j.o.DownFailed != nil:
		j.add(ruleDownDiffers, j.o.DownFailed.Error(), "")
	default:
		before, reverted := j.o.Before.lines(), j.o.Reverted.lines()
		for _, line := range reverted {
			if !slices.Contains(before, line) {
				j.add(ruleDownDiffers, line, "")
			}
		}
		for _, line := range before {
			if !slices.Contains(reverted, line) {
				j.add(ruleDownDiffers, "no "+line, "")
			}
		}
	}
}
