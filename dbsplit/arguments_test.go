package dbsplit

import (
	"database/sql/driver"
	"math/big"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// What a caller does to its arguments later is not seen by a copy.
func TestCopiedArguments(t *testing.T) {
	n := 7
	type id [16]byte
	args := func() []any {
		return []any{
			nil, 1, "text", true, 2.5, time.Unix(1, 0), []byte("bytes"), []string{"a", "b"}, [16]byte{1}, &n, (*int)(nil), []byte(nil),
			pgx.NamedArgs{"ids": []int64{1, 2}, "none": nil}, pgx.QueryExecModeExec, pgx.QueryResultFormats{1, 0},
			pgtype.Numeric{Int: big.NewInt(5), Valid: true}, pgtype.Text{String: "t", Valid: true},
			[]*int{&n, nil}, netip.MustParseAddr("::1"), []id{{1}}, map[string]any{"k": []any{1, "v"}},
			[][]byte{[]byte("x"), nil}, []any(nil), pgx.QueryResultFormatsByOID{20: 1},
		}
	}
	given, want := args(), args()
	own, ok := copied(given)
	if !ok || !reflect.DeepEqual(own, want) {
		t.Fatalf("%v: %v, want %v", ok, own, want)
	}
	given[6].([]byte)[0] = 'X'
	given[7].([]string)[0] = "X"
	n = 8
	given[12].(pgx.NamedArgs)["ids"].([]int64)[0] = 99
	given[14].(pgx.QueryResultFormats)[0] = 9
	given[15].(pgtype.Numeric).Int.SetInt64(99)
	given[19].([]id)[0][0] = 99
	given[20].(map[string]any)["k"].([]any)[1] = "X"
	given[21].([][]byte)[0][0] = 'X'
	seven := 7
	want[9], want[17] = &seven, []*int{&seven, nil}
	if !reflect.DeepEqual(own, want) {
		t.Errorf("the copy has changed: %v", own)
	}
}

func TestArgumentsThatCannotBeCopied(t *testing.T) {
	type hidden struct{ p *int }
	type shared struct{ Elements []string }
	type locked struct {
		sync.Mutex
		Text string
	}
	type sorted []int
	circle, around := map[string]any{}, []any{nil}
	circle["self"], around[0] = circle, around
	for name, arg := range map[string]any{
		"a function": func() {}, "a channel": make(chan int), "a hidden pointer": hidden{p: new(int)}, "a circle": circle, "another one": around,
		"deep inside": []any{map[string]any{"f": func() {}}}, "what may lock": &locked{Text: "t"}, "several of those": []*locked{{}},
		"what may remember": shared{[]string{"x"}}, "what may sort": sorted{2, 1}, "what is in an interface": []driver.Valuer{pgtype.Text{}},
	} {
		if _, ok := copied([]any{1, arg}); ok {
			t.Errorf("%s was copied", name)
		}
	}
}

// The percentile rests where one of twenty reads takes longer, and follows when that moves.
func TestHedgeLearns(t *testing.T) {
	var h hedges
	near := func(want time.Duration) {
		t.Helper()
		if got := time.Duration(h.usual.Load()); got < want*7/10 || got > want*14/10 {
			t.Errorf("it is %v, want about %v", got, want)
		}
	}
	uniform := func(reads int, most time.Duration) {
		for i := range reads {
			h.learn(most * time.Duration(i*37%100+1) / 100)
		}
	}
	uniform(2000, 10*time.Millisecond)
	near(9500 * time.Microsecond)
	uniform(500, time.Second)
	near(950 * time.Millisecond)
	uniform(2000, 10*time.Millisecond)
	near(9500 * time.Microsecond)
}

// Second sends never exceed a twentieth of the reads so far, and after a long time without there are ten at once.
func TestHedgeCredit(t *testing.T) {
	var h hedges
	sent := 0
	for reads := 1; reads <= 5000; reads++ {
		h.earn()
		if reads < 1000 && h.spend() {
			sent++
		}
		if sent > reads/20 {
			t.Fatalf("%d of %d reads were sent twice", sent, reads)
		}
	}
	if sent != 999/20 {
		t.Errorf("%d of 999 reads were sent twice", sent)
	}
	sent = 0
	for h.spend() {
		sent++
	}
	if sent != hedgeBurst {
		t.Errorf("%d at once, want %d", sent, hedgeBurst)
	}
}
