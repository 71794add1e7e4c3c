package history

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// step is an operation of a session; steps happen one after the other.
type step struct {
	session string
	op      Op
}

func wrote(session string, key, value int64) step {
	return step{session, Op{Kind: Write, Key: key, Value: value, Node: "primary", Via: "cookie"}}
}

func read(session string, key, value int64) step {
	return step{session, Op{Kind: Read, Key: key, Value: value, Node: "replica0", Via: "cookie"}}
}

func aside(session string, key, value int64) step {
	s := read(session, key, value)
	s.op.Aside = true
	return s
}

func lost(session string, key int64) step { // its outcome is
	return step{session, Op{Kind: Write, Outcome: Unknown, Key: key, Via: "cookie"}}
}

func refused(session string, key int64) step {
	return step{session, Op{Kind: Write, Outcome: Failed, Key: key, Via: "cookie"}}
}

func check(steps []step, final map[int64]int64) *Report {
	c := New()
	sessions := map[string]*Session{}
	for i, s := range steps {
		if sessions[s.session] == nil {
			sessions[s.session] = c.Session(s.session)
		}
		s.op.Start = time.Duration(i) * time.Second
		s.op.End = s.op.Start + time.Second/2
		sessions[s.session].Add(s.op)
	}
	return c.Report(final)
}

func TestKeptPromises(t *testing.T) {
	for name, test := range map[string]struct {
		steps []step
		final map[int64]int64
	}{
		"nothing":                           {nil, map[int64]int64{}},
		"own writes":                        {[]step{wrote("a", 1, 1), read("a", 1, 1), wrote("a", 1, 2), read("a", 1, 2)}, map[int64]int64{1: 2}},
		"a stranger may be late":            {[]step{wrote("a", 1, 1), wrote("a", 1, 2), read("b", 1, 0), read("b", 1, 1)}, map[int64]int64{1: 2}},
		"each at its own pace":              {[]step{wrote("a", 1, 1), read("b", 1, 1), read("c", 1, 0)}, map[int64]int64{1: 1}},
		"unknown, and not applied":          {[]step{wrote("a", 1, 1), lost("a", 1), read("a", 1, 1), wrote("a", 1, 2)}, map[int64]int64{1: 2}},
		"unknown, and applied":              {[]step{wrote("a", 1, 1), lost("a", 1), read("a", 1, 2), wrote("a", 1, 3)}, map[int64]int64{1: 3}},
		"unknown, and applied unseen":       {[]step{lost("a", 1), lost("a", 1), wrote("a", 1, 2), read("b", 1, 2)}, map[int64]int64{1: 2}},
		"unknown, and applied later":        {[]step{lost("a", 1), wrote("a", 1, 1), read("a", 1, 1), read("a", 1, 2)}, map[int64]int64{1: 2}},
		"unknown, and applied at the end":   {[]step{lost("a", 1), read("a", 1, 0)}, map[int64]int64{1: 1}},
		"failed":                            {[]step{refused("a", 1), read("a", 1, 0), wrote("a", 1, 1)}, map[int64]int64{1: 1}},
		"what a job saw its caller did not": {[]step{wrote("a", 1, 1), wrote("a", 1, 2), aside("b", 1, 2), read("b", 1, 1)}, map[int64]int64{1: 2}},
		"nobody asked the last server":      {[]step{wrote("a", 1, 1)}, nil},
		"a failed read":                     {[]step{wrote("a", 1, 1), {"a", Op{Outcome: Failed, Key: 1}}}, map[int64]int64{1: 1}},
	} {
		if r := check(test.steps, test.final); r.Broken() != 0 {
			t.Errorf("%s: %v", name, r)
		}
	}
}

func TestBrokenPromises(t *testing.T) {
	for name, test := range map[string]struct {
		steps []step
		final map[int64]int64
		want  Promise
		pair  string // what the two operations did
	}{
		"a stale read of one's own write": {
			[]step{wrote("a", 1, 1), read("a", 1, 1), wrote("a", 1, 2), wrote("a", 2, 1), read("a", 1, 1)}, nil,
			ReadYourWrites, "wrote 2 read 1"},
		"a stale job": {
			[]step{wrote("a", 1, 1), aside("a", 1, 0)}, nil, ReadYourWrites, "wrote 1 read 0"},
		"an unknown write lifts no floor, the known one before it stands": {
			[]step{wrote("a", 1, 1), lost("a", 1), read("a", 1, 0)}, nil, ReadYourWrites, "wrote 1 read 0"},
		"time goes back": {
			[]step{wrote("a", 1, 1), wrote("a", 1, 2), wrote("a", 1, 3), read("b", 1, 2), read("b", 1, 3), read("b", 1, 2)}, nil,
			MonotonicReads, "read 3 read 2"},
		"what the session saw must be seen by its job": {
			[]step{wrote("a", 1, 1), read("b", 1, 1), aside("b", 1, 0)}, nil, MonotonicReads, "read 1 read 0"},
		"an unknown write was seen, and is gone": {
			[]step{lost("a", 1), read("a", 1, 1), read("a", 1, 0)}, nil, MonotonicReads, "read 1 read 0"},
		"a write on a state without the last one": {
			[]step{wrote("a", 1, 1), wrote("a", 1, 1)}, nil, MonotonicWrites, "wrote 1 wrote 1"},
		"a write on a state without what was read": {
			[]step{lost("a", 1), read("a", 1, 1), wrote("a", 1, 1)}, nil, WritesFollowReads, "read 1 wrote 1"},
		"an acknowledged write is lost": {
			[]step{wrote("a", 1, 1), wrote("a", 1, 2)}, map[int64]int64{1: 1}, LostUpdate, "wrote 2 -"},
		"a counter is lost": {
			[]step{wrote("a", 1, 1)}, map[int64]int64{}, LostUpdate, "wrote 1 -"},
		"what somebody saw is lost": {
			[]step{lost("a", 1), read("b", 1, 1)}, map[int64]int64{1: 0}, LostUpdate, "read 1 -"},
		"a write was applied twice, the next one tells": {
			[]step{wrote("a", 1, 1), wrote("a", 1, 3)}, map[int64]int64{1: 3}, DoubleApply, "wrote 1 wrote 3"},
		"a write was applied twice, a read tells": {
			[]step{wrote("a", 1, 1), read("a", 1, 2)}, map[int64]int64{1: 2}, DoubleApply, "wrote 1 read 2"},
		"a write was applied twice, the end tells": {
			[]step{wrote("a", 1, 1)}, map[int64]int64{1: 2}, DoubleApply, "wrote 1 -"},
		"an unknown write was applied twice": {
			[]step{lost("a", 1), wrote("a", 1, 3)}, map[int64]int64{1: 3}, DoubleApply, "- wrote 3"},
		"a failed write was applied": {
			[]step{refused("a", 1), wrote("a", 1, 2)}, map[int64]int64{1: 2}, DoubleApply, "- wrote 2"},
		"a stranger sees a write that was not made": {
			[]step{wrote("a", 1, 1), read("b", 1, 2)}, nil, DoubleApply, "- read 2"},
		"two writers": {
			[]step{wrote("a", 1, 1), wrote("b", 1, 2)}, nil, Malformed, ""},
	} {
		r := check(test.steps, test.final)
		if test.want == Malformed {
			if r.Count(Malformed) != 1 {
				t.Errorf("%s: %v", name, r)
			}
			continue
		}
		if r.Broken() != 1 || r.Count(test.want) != 1 {
			t.Errorf("%s: want one violation of %v: %v", name, test.want, r)
			continue
		}
		v := r.Violations[0]
		if got := short(v.Before) + " " + short(v.After); got != test.pair {
			t.Errorf("%s: named %q, want %q", name, got, test.pair)
		}
		if s := test.steps[len(test.steps)-1].session; v.Session != s || !strings.Contains(v.String(), "key 1") {
			t.Errorf("%s: %v", name, v)
		}
	}
}

func short(o Op) string {
	switch {
	case o == (Op{}):
		return "-"
	case o.Kind == Write:
		return fmt.Sprint("wrote ", o.Value)
	default:
		return fmt.Sprint("read ", o.Value)
	}
}

func TestSessionsAreSequential(t *testing.T) {
	c := New()
	s := c.Session("a")
	s.Add(Op{Key: 1, Start: 1, End: 3})
	s.Add(Op{Key: 2, Start: 1, End: 3}) // of the same request
	if n := c.Report(nil).Broken(); n != 0 {
		t.Errorf("one request is %d violations", n)
	}
	s.Add(Op{Key: 1, Start: 2, End: 4})
	s.Add(Op{Key: 2, Start: 6, End: 5})
	if r := c.Report(nil); r.Count(Malformed) != 2 {
		t.Error(r)
	}
}

func TestTheShortestIsReported(t *testing.T) {
	var steps []step
	steps = append(steps, wrote("a", 1, 1), wrote("a", 2, 1), wrote("a", 1, 2), wrote("a", 2, 2))
	steps = append(steps, read("a", 2, 1), read("a", 1, 1)) // two seconds apart, and four
	r := check(steps, nil)
	if r.Count(ReadYourWrites) != 2 || len(r.Violations) != 1 || r.Violations[0].Key != "2" {
		t.Error(r)
	}
}

func TestTallies(t *testing.T) {
	r := check([]step{
		read("a", 1, 0), wrote("a", 1, 1), read("a", 1, 1), read("a", 1, 1), wrote("a", 1, 2), lost("a", 1), refused("a", 1),
		read("b", 1, 1), read("b", 1, 0), {"b", Op{Outcome: Unknown, Via: "cookie"}},
	}, nil)
	got := *r.Tallies["cookie"]
	if got.Nodes["replica0"] != 5 || got.Share(func(node string) bool { return node == "replica0" }) != 1 {
		t.Errorf("%+v", got)
	}
	got.Nodes = nil
	if want := (Tally{Writes: 2, UnknownWrites: 1, FailedWrites: 1, Reads: 5, FailedReads: 1, Pairs: 1, Covered: 2, Again: 3, Broken: 1}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
