package dbsplit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/metrics"
)

func TestRing(t *testing.T) {
	start := time.Now()
	var r ring
	if _, ok := r.reached(5); ok {
		t.Error("an empty ring knows nothing")
	}
	r.add(10, start)
	r.add(20, start.Add(1*time.Second))
	r.add(20, start.Add(9*time.Second)) // idle
	r.add(30, start.Add(10*time.Second))
	for lsn, want := range map[scaleaware.LSN]time.Duration{10: 0, 19: 0, 20: 9 * time.Second, 29: 9 * time.Second, 99: 10 * time.Second} {
		if got, ok := r.reached(lsn); !ok || !got.Equal(start.Add(want)) {
			t.Errorf("position %d was reached at %v, %v; want %v", lsn, got.Sub(start), ok, want)
		}
	}
	if _, ok := r.reached(9); ok {
		t.Error("position 9 lies before the ring")
	}
	for i := range 3 * ringSize {
		r.add(scaleaware.LSN(100+i), start.Add(time.Minute))
	}
	if len(r.samples) > ringSize {
		t.Errorf("%d samples are kept", len(r.samples))
	}
	r.add(1, start.Add(time.Hour))
	if len(r.samples) != 1 {
		t.Error("another history must begin anew")
	}
}

// A replica that falls behind for a week is still known to be behind, and about for how long.
func TestRingReachesBack(t *testing.T) {
	start := time.Now()
	const perSecond, week = 4, 7 * 24 * 3600 * 4
	when := func(lsn scaleaware.LSN) time.Time { return start.Add(time.Duration(lsn) * time.Second / perSecond) }
	var r ring
	for i := range scaleaware.LSN(week) {
		r.add(i, when(i))
	}
	if len(r.samples) > ringSize {
		t.Errorf("%d samples are kept", len(r.samples))
	}
	now := when(week)
	for age := scaleaware.LSN(1); age <= week; age = age*5/4 + 1 {
		got, ok := r.reached(week - age)
		truly, bound := now.Sub(when(week-age)), now.Sub(got)
		if most := truly + truly/16 + time.Second/perSecond; !ok || bound < truly || bound > most {
			t.Errorf("%v behind: at most %v, %v; want at most %v", truly, bound, ok, most)
		}
		if truly < time.Minute && bound != truly {
			t.Errorf("%v behind: at most %v", truly, bound)
		}
	}
}

func TestErrorsTell(t *testing.T) {
	server := func(severity, code string) error {
		return fmt.Errorf("wrapped: %w", &pgconn.PgError{SeverityUnlocalized: severity, Severity: "FEHLER", Code: code})
	}
	ctx := context.Background()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for name, test := range map[string]struct {
		ctx            context.Context
		err            error
		closed         bool
		again, replica bool
		unknown        bool
	}{
		"connection lost":               {ctx, io.ErrUnexpectedEOF, true, true, true, true},
		"scan error":                    {ctx, errors.New("cannot scan"), false, false, false, false},
		"unique violation":              {ctx, server("ERROR", "23505"), false, false, false, false},
		"terminated":                    {ctx, server("FATAL", "57P01"), true, true, true, true},
		"statement timeout":             {ctx, server("ERROR", "57014"), false, false, false, false},
		"conflict, or serialization":    {ctx, server("ERROR", "40001"), false, false, true, false},
		"conflict kills the connection": {ctx, server("FATAL", "40001"), true, true, true, true},
		"the caller gave up":            {ended, context.Canceled, true, false, false, true},
		"write on a replica":            {ctx, server("ERROR", "25006"), false, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := readRetry(test.ctx, test.err, test.closed, false); got != test.again {
				t.Errorf("retry after the primary: %v", got)
			}
			if got := readRetry(test.ctx, test.err, test.closed, true); got != test.replica {
				t.Errorf("retry after a replica: %v", got)
			}
			err := writeError(test.err, test.closed, true)
			if got := errors.Is(err, ErrOutcomeUnknown); got != test.unknown {
				t.Errorf("outcome unknown: %v", got)
			}
			if !errors.Is(err, test.err) {
				t.Errorf("%v hides %v", err, test.err)
			}
			if errors.Is(writeError(test.err, test.closed, false), ErrOutcomeUnknown) {
				t.Error("nothing was sent")
			}
		})
	}
}

const canary = "c4n4ry"

func TestNodesAreChecked(t *testing.T) {
	const good = "postgres://app:" + canary + "@db1:5432/shop"
	for name, test := range map[string]struct {
		nodes Nodes
		want  string
	}{
		"no primary":           {Nodes{}, "Nodes.Primary is empty"},
		"an empty entry":       {Nodes{good, []string{""}}, "Nodes.Replicas[0] is empty"},
		"not a DSN":            {Nodes{good, []string{"://" + canary}}, "Nodes.Replicas[0] is no connection string"},
		"a bad port":           {Nodes{Primary: "postgres://app:" + canary + "@db1:" + canary + "/shop"}, "invalid port"},
		"a raw slash":          {Nodes{Primary: "postgres://app:" + canary + "/" + canary + "@db1:5432/shop"}, "Nodes.Primary"},
		"a raw at":             {Nodes{Primary: "postgres://app:x@" + canary + "@db1:5432:1/shop"}, "Nodes.Primary"},
		"a bad sslmode":        {Nodes{Primary: good + "?sslmode=" + canary}, "look at sslmode"},
		"a bad pool size":      {Nodes{Primary: good + "?pool_max_conns=" + canary}, "look at pool_max_conns"},
		"keywords":             {Nodes{Primary: "host=db1 password=" + canary + " port=" + canary}, "invalid port"},
		"broken keywords":      {Nodes{Primary: "host=db1 password='" + canary}, "Nodes.Primary"},
		"twice the same":       {Nodes{good, []string{"postgres://other:" + canary + "@db1/else"}}, "Nodes.Replicas[0] names the same server as Nodes.Primary, db1:5432"},
		"a weight of nothing":  {Nodes{Primary: good + "?node_weight=0"}, "node_weight that is no number from 1 to 100"},
		"an unknown pooler":    {Nodes{Primary: good + "?node_pooler=" + canary}, "unknown node_pooler"},
		"a name as address":    {Nodes{Primary: good + "?node_addr=" + canary}, "node_addr that is no IP address"},
		"one address twice":    {Nodes{good + "?node_addr=10.0.0.1", []string{"postgres://db2/shop?node_addr=10.0.0.1"}}, "names the same server as Nodes.Primary, 10.0.0.1:5432"},
		"several hosts in one": {Nodes{Primary: "postgres://app:" + canary + "@db1,db2/shop"}, "give each server as a node of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := Open(t.Context(), test.nodes, nil)
			if err == nil {
				db.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want it to say %q", err, test.want)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if strings.Contains(fmt.Sprintf("%v %+v %#v", e, e, e), canary) {
					t.Errorf("the password is in %#v", e)
				}
			}
		})
	}
	_, err := Open(t.Context(), Nodes{"", []string{"", good, good}}, &Options{MinConns: 5, MaxConns: 2, MaxStaleness: -1, PrimaryReadConns: -1, ProbeTimeout: -1})
	for _, want := range []string{"Nodes.Primary", "Replicas[0]", "Replicas[2]", "MinConns is 5", "MaxStaleness", "PrimaryReadConns", "ProbeTimeout"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
}

func TestNodeParameters(t *testing.T) {
	e, err := parseDSN("postgres://app@db1:5433/shop?node_zone=eu-1&node_weight=25&node_pooler=transaction&node_addr=10.0.0.7&timezone=UTC")
	if err != nil {
		t.Fatal(err)
	}
	if e.name != "10.0.0.7:5433" || e.zone != "eu-1" || e.weight != 25 || e.pooler != poolerTransaction {
		t.Errorf("%+v", e)
	}
	c := e.config.ConnConfig
	if addrs, err := c.LookupFunc(t.Context(), c.Host); c.Host != "db1" || len(addrs) != 1 || addrs[0] != "10.0.0.7" || err != nil {
		t.Errorf("host %s is looked up as %v, %v", c.Host, addrs, err)
	}
	for name := range c.RuntimeParams {
		if name != "timezone" {
			t.Errorf("%s would be sent to the server", name)
		}
	}
	if e, err := parseDSN("host=db1 user=app"); err != nil || e.weight != 10 || e.zone != "" || e.pooler != poolerNone {
		t.Errorf("without parameters: %+v, %v", e, err)
	}
}

func TestOperationName(t *testing.T) {
	for sql, want := range map[string]string{
		"-- name: GetLead :one\nselect 1":               "GetLead",
		"-- name: GetLead\nselect 1":                    "GetLead",
		"-- name: Get'; drop :one":                      "query",
		"-- name: ":                                     "query",
		"-- name: GetLead":                              "query",
		"-- name: " + strings.Repeat("x", 65) + " :one": "query",
		"select 1":                                      "query",
		"begin read only":                               "",
		"rollback":                                      "",
		"savepoint sp_1":                                "",
		"commit":                                        "commit",
		"commit; select 1":                              "query",
	} {
		if got := metrics.OperationName(sql, "query"); got != want {
			t.Errorf("%q is named %q, want %q", sql, got, want)
		}
	}
	in, err := newInstruments("db", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxOperations {
		in.operation(fmt.Sprintf("-- name: Q%d :one\n", i), "query")
	}
	if n := len(*in.operations.Load()); n > maxOperations+1 {
		t.Errorf("%d names became label values", n)
	}
}
