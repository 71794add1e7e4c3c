package dbsplit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// A server has two addresses, as one behind a virtual address has, or one with IPv4 and IPv6.
func TestTwinByAnotherAddress(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	c, err := pgcluster.Start(ctx, &pgcluster.Options{Settings: map[string]string{"listen_addresses": "127.0.0.1,127.0.0.2"}})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	own := c.Primary().URL("postgres")
	db := run(t, dbsplit.Nodes{Primary: own}, nil)
	must(t, db.AddReplica(strings.Replace(own, "127.0.0.1", "127.0.0.2", 1)))
	await(t, db, "the other address", func() bool { n := db.Nodes(); return n[0].Up && n[1].Up && n[1].Role == "twin" })
	if n := db.Nodes(); n[0].Role != "primary" || n[0].Advice != "" {
		t.Errorf("the server has become %+v", n)
	}
}
