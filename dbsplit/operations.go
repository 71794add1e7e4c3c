package dbsplit

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

const (
	operationsPath = "/api/v1/performance/database/"

	defaultWindow = 10 * time.Minute
	defaultLimit  = 20
	maxLimit      = 500
	maxPool       = 10_000
)

// PoolRequest is the body of the pool operation.
type PoolRequest struct {
	// Max is the most connections of the pool for writes. The other pools change in the same proportion, as in Resize.
	Max int32 `json:"max"`
}

// PoolReport lists this process's pools.
type PoolReport struct {
	// Scope says whose pools were changed.
	Scope string      `json:"scope"`
	Pools []PoolState `json:"pools"`
}

// PoolState is one pool.
type PoolState struct {
	Node     string `json:"node"`
	Role     string `json:"role"`
	Max      int32  `json:"max"`
	Acquired int32  `json:"acquired"`
	Idle     int32  `json:"idle"`
}

// CancelReply is the answer of cancel-long-running.
type CancelReply struct {
	// Count is how many statements were cancelled or sessions terminated.
	Count int            `json:"count"`
	Nodes []CancelReport `json:"nodes"`
}

var tableParam = admin.Param{Name: "table", In: "path", Type: "string", Description: `The table's name: Lead, "Lead" or schema.table.`}

func query(name, kind, description string) admin.Param {
	return admin.Param{Name: name, In: "query", Type: kind, Description: description}
}

// Operations returns the database operations for the management listener.
func (db *DB) Operations() []admin.Operation {
	return append([]admin.Operation{{
		Method: http.MethodGet, Path: operationsPath + "slow-queries", ID: "database.slow-queries",
		Summary: "The costliest statements on each node and over all, since an earlier look, of which there is one every 2 minutes; nothing is reset.",
		Params: []admin.Param{
			query("window", "duration", "How far back to compare with an earlier look, at most a day; 10m when absent."),
			query("limit", "integer", "How many statements; 20 when absent, at most 500."),
		},
		Reply: SlowQueriesReport{}, Do: db.slowQueriesOperation,
	}, {
		Method: http.MethodGet, Path: operationsPath + "replication", ID: "database.replication",
		Summary: "Nodes with role and staleness, and the primary's streams and replication slots.", Reply: ReplicationReport{},
		Do: func(ctx context.Context, _ *admin.Call) (any, error) { return db.Replication(ctx) },
	}, {
		Method: http.MethodGet, Path: operationsPath + "sizes", ID: "database.sizes",
		Summary: "The size of the database and of its largest tables, and how they have grown.",
		Params: []admin.Param{
			query("window", "duration", "How far back to compare with; 24h when absent."),
			query("limit", "integer", "How many tables; 20 when absent, at most 500."),
		},
		Reply: SizesReport{}, Do: db.sizesOperation,
	}, {
		Method: http.MethodPost, Path: operationsPath + "optimize-table/{table}", ID: "database.optimize-table", Role: admin.Operator,
		Summary: "VACUUM (ANALYZE) a table in the background; 403 for one that the service may not maintain.",
		Params:  []admin.Param{tableParam, query("reindex", "boolean", "Also rebuild its indexes without blocking writes.")},
		Reply:   admin.Started{}, Do: db.optimizeOperation,
	}, {
		Method: http.MethodPost, Path: operationsPath + "cancel-long-running", ID: "database.cancel-long-running", Role: admin.Operator,
		Summary: "Cancel old statements of client sessions in this database, on every node; never replication.",
		Params: []admin.Param{
			query("older_than", "duration", "How long a statement must have run; 5m when absent."),
			query("transactions", "boolean", "Judge by the age of the transaction, and find sessions that are idle in one."),
			query("terminate", "boolean", "End the sessions instead of the statements; those idle in a transaction need it."),
		},
		Reply: CancelReply{}, Do: db.cancelOperation,
	}, {
		Method: http.MethodPost, Path: operationsPath + "pool", ID: "database.pool", Role: admin.Operator,
		Summary: "Change the most connections of this instance's pool for writes, and of its other pools in proportion, while in use.",
		Body:    PoolRequest{}, Reply: PoolReport{}, Do: db.poolOperation,
	}}, db.partitionOperations()...)
}

func (db *DB) slowQueriesOperation(ctx context.Context, c *admin.Call) (any, error) {
	window, err := durationQuery(c, "window", defaultWindow)
	if err != nil {
		return nil, err
	}
	limit, err := intQuery(c, "limit", defaultLimit, 1, maxLimit)
	if err != nil {
		return nil, err
	}
	return db.SlowQueries(ctx, window, limit)
}

func (db *DB) sizesOperation(ctx context.Context, c *admin.Call) (any, error) {
	window, err := durationQuery(c, "window", defaultGrowthWindow)
	if err != nil {
		return nil, err
	}
	limit, err := intQuery(c, "limit", defaultLimit, 1, maxLimit)
	if err != nil {
		return nil, err
	}
	return db.Sizes(ctx, window, limit)
}

func (db *DB) optimizeOperation(ctx context.Context, c *admin.Call) (any, error) {
	opts := OptimizeOptions{Reindex: boolQuery(c, "reindex")}
	r, plan, err := db.planOptimize(ctx, c.Path("table"), opts)
	if err != nil {
		return nil, err
	}
	if c.DryRun {
		return plan, nil
	}
	return c.Background.Start("database.optimize-table", r.String(), c.Actor, func(ctx context.Context, progress admin.Progress) (any, error) {
		progress(plan)
		return db.OptimizeTable(ctx, r.String(), opts)
	})
}

func (db *DB) cancelOperation(ctx context.Context, c *admin.Call) (any, error) {
	age, err := durationQuery(c, "older_than", defaultOlderThan)
	if err != nil {
		return nil, err
	}
	if age <= 0 {
		return nil, admin.Invalid("older_than", "%v is no age: give 1s or more", age)
	}
	reports, err := db.CancelLongRunning(ctx, CancelOptions{
		OlderThan: age, Transactions: boolQuery(c, "transactions"), Terminate: boolQuery(c, "terminate"), DryRun: c.DryRun,
	})
	if err != nil {
		return nil, err
	}
	reply := CancelReply{Nodes: reports}
	for _, r := range reports {
		for _, s := range r.Statements {
			if s.Result == "cancelled" || s.Result == "terminated" {
				reply.Count++
			}
		}
	}
	return reply, nil
}

func (db *DB) poolOperation(ctx context.Context, c *admin.Call) (any, error) {
	most := admin.Body[PoolRequest](c).Max
	if most < 1 || most > maxPool {
		return nil, admin.Invalid("max", "%d connections: give 1 to %d, as in {\"max\": 50}", most, maxPool)
	}
	if !c.DryRun {
		if err := db.Resize(ctx, most); err != nil {
			return nil, unavailable(err)
		}
	}
	report := PoolReport{Scope: "this instance only, until it restarts", Pools: []PoolState{}}
	db.eachPool(func(n *node, role string, p *pool) {
		s := p.Stat()
		report.Pools = append(report.Pools, PoolState{n.name, role, s.MaxConns(), s.AcquiredConns(), s.IdleConns()})
	})
	return report, nil
}

// The operations' inputs have been checked against Params, except for their ranges.

func durationQuery(c *admin.Call, name string, otherwise time.Duration) (time.Duration, error) {
	text := c.Query(name)
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, admin.Invalid(name, "want a duration like 10m")
	}
	return d, nil
}

func intQuery(c *admin.Call, name string, otherwise, least, most int) (int, error) {
	text := c.Query(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, admin.Invalid(name, "want a number from %d to %d", least, most)
	}
	return n, nil
}

func boolQuery(c *admin.Call, name string) bool {
	b, _ := strconv.ParseBool(c.Query(name)) // absent is false
	return b
}
