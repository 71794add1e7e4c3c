package dbsplit

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scaleaware/scaleaware"
)

func TestParseHistory(t *testing.T) {
	const text = "1\t0/B1C4540\tno recovery target specified\n\n2 1/000000A0 before 2026-01-01\n# a comment\n"
	got, err := parseHistory(text)
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint32]fork{1: {0xB1C4540, 0xB1C4540}, 2: {0x1_0000_00A0, 0x1_0000_00A0}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(fork{})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"1", "0\t0/1", "x\t0/1", "1\t01", "-1\t0/1", "4294967296\t0/1"} {
		if got, err := parseHistory(bad); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add("1\t0/B1C4540\tno recovery target specified\n")
	f.Add("1 0/1 # 2")
	f.Fuzz(func(t *testing.T, text string) {
		ends, err := parseHistory(text)
		for timeline, end := range ends {
			if err != nil || timeline == 0 || end.atLeast != end.atMost {
				t.Errorf("%d ends at %v, %v", timeline, end, err)
			}
		}
	})
}

func TestLost(t *testing.T) {
	db := new(DB)
	at := func(timeline uint32, lsn scaleaware.LSN, recovering bool) position {
		return position{recovering: recovering, at: scaleaware.Token{System: system, Timeline: timeline, LSN: lsn}}
	}
	lost := func(timeline uint32, lsn scaleaware.LSN) bool {
		return db.history.Load().lost(at(timeline, lsn, false).at)
	}
	if lost(1, 1<<60) {
		t.Error("lost without any history")
	}
	for _, nothing := range [][2]position{
		{at(1, 100, true), at(1, 150, true)},   // replays on
		{at(1, 100, false), at(2, 150, false)}, // was no replica
		{at(1, 100, true), at(2, 150, true)},   // follows another one
		{{recovering: true}, at(2, 150, false)},
	} {
		db.sawFork(nothing[0], nothing[1])
	}
	if db.history.Load() != nil {
		t.Error("a fork was seen where there is none")
	}
	db.sawFork(at(1, 100, true), at(2, 150, false))
	if lost(1, 100) || lost(1, 150) || !lost(1, 151) || lost(2, 1<<60) {
		t.Error("between 100 and 150 it cannot be told")
	}
	db.history.Store(&timelines{system: system, current: 3, ends: map[uint32]fork{1: {120, 120}}})
	if lost(1, 120) || !lost(1, 121) {
		t.Error("the history file says 120")
	}
	if !lost(2, 130) || lost(3, 1<<60) || lost(4, 1) {
		t.Error("timeline 2 is a branch that the history of 3 does not know")
	}
	db.sawFork(at(1, 90, true), at(3, 160, false))
	if !lost(1, 121) || db.history.Load().current != 3 {
		t.Error("what was seen is less exact than the file")
	}
	stranger := scaleaware.Token{System: system + 1, Timeline: 1, LSN: 1 << 60}
	if db.history.Load().lost(stranger) {
		t.Error("a position of another cluster is lost")
	}
	db.sawFork(position{recovering: true, at: scaleaware.Token{System: system + 1, Timeline: 1, LSN: 5}}, position{at: scaleaware.Token{System: system + 1, Timeline: 2, LSN: 6}})
	if lost(1, 121) || !db.history.Load().lost(stranger) {
		t.Error("the history of another cluster does not begin anew")
	}
	db.system.Store(system + 1)
	db.sawFork(at(1, 90, true), at(3, 160, false))
	if !db.history.Load().lost(stranger) {
		t.Error("strangers' promotions have taken the place of the history")
	}
	unknown := scaleaware.UnknownPosition(system)
	if db.history.Load().lost(unknown) {
		t.Error("an unknown position is lost")
	}
}

func TestSighted(t *testing.T) {
	db := new(DB)
	start := time.Now()
	token := func(timeline uint32, lsn scaleaware.LSN) scaleaware.Token {
		return scaleaware.Token{System: system, Timeline: timeline, LSN: lsn}
	}
	for i, step := range []struct {
		see   scaleaware.Token
		asked time.Duration
		want  scaleaware.Token
		since time.Duration // the latest moment that is covered
	}{
		{token(1, 10), 1, token(1, 10), 1},
		{token(1, 8), 3, token(1, 10), 3}, // overtaken on its way; what it covers the higher one covers, too
		{token(1, 12), 2, token(1, 12), 3},
		{token(2, 5), 2, token(2, 5), 2}, // promoted
		{token(1, 99), 9, token(2, 5), 2},
		{token(2, 6), 10, token(2, 6), 10},
		{scaleaware.Token{System: system + 1, Timeline: 1, LSN: 1}, 11, scaleaware.Token{System: system + 1, Timeline: 1, LSN: 1}, 11},
	} {
		db.sighted(step.see, start.Add(step.asked*time.Second), true)
		if got := db.latest.Load(); got.at != step.want || !got.asked.Equal(start.Add(step.since*time.Second)) {
			t.Errorf("step %d: %v as of %v", i, got.at, got.asked.Sub(start))
		}
		covered, ok := db.PositionSince(start.Add(step.since*time.Second - 1))
		if _, later := db.PositionSince(start.Add(step.since * time.Second)); !ok || covered != step.want && i != 3 && i != 4 || later {
			t.Errorf("step %d: %v, %v; later %v", i, covered, ok, later)
		}
	}
}

// What was committed before a promotion was seen has a position on the timeline before it, not on the new one.
func TestPositionsAcrossAPromotion(t *testing.T) {
	db := new(DB)
	start := time.Now()
	for _, s := range []struct {
		token scaleaware.Token
		asked time.Duration
	}{{at(1, 10), 1}, {at(1, 20), 3}, {at(2, 15), 6}, {at(2, 17), 8}} {
		db.sighted(s.token, start.Add(s.asked*time.Second), true)
	}
	for mark, want := range map[time.Duration]scaleaware.Token{2: at(1, 20), 4: at(1, 21), 7: at(2, 17), 9: {}} {
		if got, ok := db.PositionSince(start.Add(mark * time.Second)); got != want || ok != (want != scaleaware.Token{}) {
			t.Errorf("of second %d: %v, %v, want %v", mark, got, ok, want)
		}
	}
	db.fellBack(at(2, 12), start.Add(9*time.Second)) // it has crashed
	if got, ok := db.PositionSince(start.Add(8 * time.Second)); got != at(2, 12) || !ok {
		t.Errorf("after a crash: %v, %v", got, ok)
	}
	if got, ok := db.PositionSince(start.Add(4 * time.Second)); got != at(1, 21) || !ok {
		t.Errorf("after a crash, from before the promotion: %v, %v", got, ok)
	}
}

func TestToldOnce(t *testing.T) {
	var told toldTokens
	if !told.first(at(1, 5)) || told.first(at(1, 5)) || !told.first(at(1, 6)) {
		t.Error("a position is told of once")
	}
	for i := range mostTold {
		told.first(at(1, scaleaware.LSN(1000+i)))
	}
	if len(told.known) > mostTold {
		t.Errorf("%d positions are remembered", len(told.known))
	}
}

func TestAdmission(t *testing.T) {
	start := time.Now()
	up := func(a admission) standing { return standing{probed: true, up: true, admission: a} }
	down := func(a admission) standing { return standing{probed: true, admission: a} }
	a := admission{}.admit(standing{}, start)
	if a != (admission{let: start}) {
		t.Errorf("at the start: %+v", a)
	}
	if b := (admission{}).admit(down(admission{}), start); b != (admission{let: start, back: start}) {
		t.Errorf("a newcomer, or one that was down at the start: %+v", b)
	}
	if b := a.admit(up(a), start.Add(time.Hour)); b != a {
		t.Errorf("while it answers: %+v", b)
	}
	late := start.Add(readmission)
	if b := a.admit(down(a), late); b != (admission{let: late, back: late}) {
		t.Errorf("back after long: %+v", b)
	}
	soon := a.admit(down(a), start.Add(time.Second))
	if !soon.barred {
		t.Errorf("back at once: %+v", soon)
	}
	if b := soon.admit(up(soon), late.Add(-1)); !b.barred {
		t.Errorf("still within: %+v", b)
	}
	if b := soon.admit(up(soon), late); b != (admission{let: late, back: late}) {
		t.Errorf("answering throughout: %+v", b)
	}
	// Up and down each second for a minute: at most one admission in five seconds.
	admissions := 0
	a, before := admission{}, standing{}
	for at := time.Duration(0); at < time.Minute; at += 250 * time.Millisecond {
		if at/time.Second%2 == 1 {
			before = down(a)
			continue
		}
		now := a.admit(before, start.Add(at))
		if now.let != a.let {
			admissions++
		}
		a, before = now, up(now)
	}
	if admissions > 13 || admissions < 8 {
		t.Errorf("%d admissions in a minute", admissions)
	}
}

func TestUsage(t *testing.T) {
	var u usage
	u.add(1, 0)
	u.add(1, 1*time.Second)
	u.add(-1, 3*time.Second)
	if got := u.sample(counted(1), 4*time.Second); got != 1.5 { // 1 for one second, 2 for two, 1 for one
		t.Errorf("%v connections on average", got)
	}
	if got := u.sample(counted(3), 5*time.Second); got != 1 {
		t.Errorf("then %v", got)
	}
	if got := u.sample(counted(3), 6*time.Second); got != 3 {
		t.Errorf("after a correction %v", got)
	}
}

func counted(n int64) func() int64 { return func() int64 { return n } }

// A connection that is taken while a sample is is not forgotten: the sample may have counted it, or not.
func TestUsageForgetsNothingBesideASample(t *testing.T) {
	var u usage
	var taken sync.WaitGroup
	u.sample(func() int64 {
		if u.mu.TryLock() {
			u.mu.Unlock()
			t.Error("counted while connections may be taken")
		}
		taken.Go(func() { u.add(1, time.Second) })
		return 0
	}, time.Second)
	taken.Wait()
	if n, touched := u.now(); n != 1 || touched != time.Second {
		t.Errorf("%d connections in use, want 1; the last was taken at %v", n, touched)
	}
}

// A history that was asked for comes late: its server has been replaced, or another promotion was seen.
func TestALateHistory(t *testing.T) {
	db, err := Open(t.Context(), Nodes{Primary: "postgres://127.0.0.1:1/x", Replicas: []string{"postgres://127.0.0.1:2/x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	nodes := db.members()
	told := &timelines{system: system, current: 2, ends: map[uint32]fork{1: {50, 50}}}
	before := db.history.Load()
	db.sawFork(position{recovering: true, at: at(2, 60)}, position{at: at(3, 61)})
	seen := db.history.Load()
	db.learned(nodes[0], before, told)
	if db.history.Load() != seen {
		t.Error("what was seen is forgotten for what came late")
	}
	db.learned(nodes[1], seen, told)
	if db.history.Load() != seen {
		t.Error("a server that is not the primary was believed")
	}
	db.learned(nodes[0], seen, told)
	if db.history.Load() != told {
		t.Error("the primary was not believed")
	}
}
