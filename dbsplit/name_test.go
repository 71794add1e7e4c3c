package dbsplit_test

import (
	"strings"
	"testing"

	"github.com/scaleaware/scaleaware/dbsplit"
)

// PostgreSQL keeps 63 bytes of ASCII of a session's name: the instances of a longer one would not find each other.
func TestNameIsKeptByTheServer(t *testing.T) {
	c := shared.Get(t)
	nodes := nodesOf(c, c.Database(t))
	for _, name := range []string{strings.Repeat("n", 56), "größe", "a\tb"} {
		if _, err := dbsplit.Open(t.Context(), nodes, &dbsplit.Options{Name: name}); err == nil || !strings.Contains(err.Error(), "Options.Name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	opts := dbsplit.Options{Name: strings.Repeat("n", 55), MaxConns: 3, PrimaryReadConns: 2}
	first := run(t, nodes, &opts)
	await(t, first, "the first to count itself", func() bool { return first.Nodes()[0].FleetConnections == 3+2+1 })
	second := run(t, nodes, &opts)
	await(t, second, "the second to count both", func() bool { return second.Nodes()[0].FleetConnections == 2*(3+2+1) })
}
