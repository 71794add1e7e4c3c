package dbsplit

import (
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

func TestCaught(t *testing.T) {
	const now = time.Second
	at := func(s *snapshot) scaleaware.Token { return s.views[0].at }
	behind, caught := weighed(primaryAt(60), replicaAt(50, now)), weighed(primaryAt(60), replicaAt(50, now), replicaAt(60, now))
	barred := weighed(primaryAt(60), with(replicaAt(60, now), func(v *view) { v.barred = true }))
	token := at(behind)
	for name, c := range map[string]struct {
		s      *snapshot
		tokens scaleaware.Tokens
		want   bool
	}{
		"before Run":                {nil, scaleaware.Tokens{token}, true},
		"no replica":                {weighed(primaryAt(60)), scaleaware.Tokens{token}, true},
		"all are behind":            {behind, scaleaware.Tokens{token}, false},
		"one has it":                {caught, scaleaware.Tokens{token}, true},
		"who has it is barred":      {barred, scaleaware.Tokens{token}, false},
		"nothing was written":       {behind, nil, true},
		"of another database":       {behind, scaleaware.Tokens{{System: token.System + 1, Timeline: 1, LSN: 1 << 40}}, true},
		"at an unknown position":    {behind, scaleaware.Tokens{scaleaware.UnknownPosition(token.System)}, true},
		"an earlier one is reached": {behind, scaleaware.Tokens{{System: token.System, Timeline: token.Timeline, LSN: 50}}, true},
	} {
		db := new(DB)
		db.snap.Store(c.s)
		db.system.Store(token.System)
		if got := db.Caught(c.tokens); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
