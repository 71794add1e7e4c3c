package dbsplit

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware"
)

// carried are tokens that a session seeds.
type carried struct{ ts scaleaware.Tokens }

func (c *carried) Tokens() scaleaware.Tokens { return c.ts }

// The configured primary may be an old one, whose promoted successor has what the caller wrote. However the caller carries
// that, no read is sent before it is known.
func TestNoReadOfAnUnknownPrimary(t *testing.T) {
	const primary, replica = "postgres://127.0.0.1:1/x", "postgres://127.0.0.1:2/x"
	token := at(2, 100)
	for name, nodes := range map[string]Nodes{"one node": {Primary: primary}, "two nodes": {Primary: primary, Replicas: []string{replica}}} {
		for how, carry := range map[string]func(*scaleaware.Watermark){
			"raised": func(w *scaleaware.Watermark) { w.Raise(token) },
			"seeded": func(w *scaleaware.Watermark) { w.SeedFrom(&carried{scaleaware.Tokens{token}}) },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				db, err := Open(t.Context(), nodes, &Options{ProbeTimeout: time.Nanosecond})
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				decide := func(when, want string) {
					t.Helper()
					ctx, w := scaleaware.WithWatermark(context.Background())
					carry(w)
					var d decision
					err := db.Read().decide(ctx, 0, &d)
					if got := func() string {
						if err == nil {
							return d.node.name
						}
						return ""
					}(); got != want || want == "" && !errors.Is(err, ErrNoNode) {
						t.Errorf("%s: read from %q, %v, want %q", when, got, err, want)
					}
				}
				db.sighted(at(1, 50), time.Now(), false)
				decide("without Run", "")
				db.latest.Store(nil)
				db.publish()
				decide("before the first probes", "")
				members := db.members()
				for i, n := range members {
					db.observe(n, time.Now(), position{recovering: i > 0, at: at(1, 50)}, nil)
				}
				decide("an old primary", "")
				db.observe(members[0], time.Now(), position{at: at(2, 100)}, nil)
				decide("the present one", members[0].name)
			})
		}
	}
}
