package dbsplit

import (
	"testing"
	"time"
)

// A write that waited until its primary, which had refused one, was found to be one has not begun to wait for a failover.
func TestConfirmedPrimaryTakesNoPatience(t *testing.T) {
	const wait = time.Minute
	earlier := time.Now().Add(wait / 2)
	for name, c := range map[string]struct {
		until    time.Time // of a failure before
		answered bool
		demoted  bool
		begins   bool
	}{
		"answered":                  {answered: true},
		"answered, after a failure": {until: earlier, answered: true},
		"answered by a standby":     {answered: true, demoted: true, begins: true},
		"not answered":              {begins: true},
		"nor after a failure":       {until: earlier},
	} {
		db := &DB{opened: time.Now(), opts: Options{FailoverWait: wait}} // a look takes no time
		s := weighed(primaryAt(60))
		s.nodes, s.next = []*node{{}}, make(chan struct{})
		if c.answered {
			db.opts.ProbeTimeout, s.views[0].sent = wait, time.Now().Add(time.Second)
		}
		if c.demoted {
			s.views[0].probed, s.views[0].up, s.views[0].role = true, true, roleReplica
		}
		db.writer.Store(s.nodes[0])
		db.snap.Store(s)
		db.doubted.Store(1)
		w := &succession{db: db, until: c.until}
		w.confirm(t.Context())
		if begun := !w.until.Equal(c.until); begun != c.begins || db.doubted.Load() != 0 {
			t.Errorf("%s: the patience ends at %v, before at %v; doubted since %v", name, w.until, c.until, db.doubted.Load())
		}
	}
}
