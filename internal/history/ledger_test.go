package history

import "testing"

func TestLedger(t *testing.T) {
	for name, test := range map[string]struct {
		outcome Outcome
		stored  int
		want    Promise
		broken  bool
	}{
		"acknowledged, stored":        {OK, 1, 0, false},
		"acknowledged, lost":          {OK, 0, LostUpdate, true},
		"acknowledged, stored twice":  {OK, 2, DoubleApply, true},
		"unknown, not stored":         {Unknown, 0, 0, false},
		"unknown, stored":             {Unknown, 1, 0, false},
		"unknown, stored three times": {Unknown, 3, DoubleApply, true},
		"failed":                      {Failed, 0, 0, false},
		"failed, stored":              {Failed, 1, Phantom, true},
	} {
		l := NewLedger()
		l.Add("a", "good", Op{Kind: Write})
		l.Add("b", "key", Op{Kind: Write, Outcome: test.outcome})
		a := l.Audit(map[string]int{"good": 1, "key": test.stored})
		if !test.broken {
			if len(a.Violations) != 0 {
				t.Errorf("%s: %v", name, a)
			}
			continue
		}
		if len(a.Violations) != 1 || a.Count(test.want) != 1 || a.Violations[0].Session != "b" || a.Violations[0].Key != "key" {
			t.Errorf("%s: %v", name, a)
		}
	}
}

func TestLedgerKnowsItsRows(t *testing.T) {
	l := NewLedger()
	l.Add("a", "twice", Op{Kind: Write})
	l.Add("a", "twice", Op{Kind: Write, Outcome: Unknown})
	l.Add("a", "unknown", Op{Kind: Write, Outcome: Unknown})
	a := l.Audit(map[string]int{"twice": 1, "unknown": 1, "foreign": 1})
	if a.Count(Malformed) != 1 || a.Count(Phantom) != 1 || a.Unknown != 2 || a.Applied != 2 {
		t.Error(a)
	}
}
