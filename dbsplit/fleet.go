package dbsplit

import (
	"context"
	"fmt"
	"sync"
)

// budget is how many connections a server takes, and how many the fleet may open to it.
type budget struct{ most, fleet, instances int }

// advice says what to do about a fleet that may open more connections than the server takes.
func (b *budget) advice() string {
	if b == nil || b.fleet <= b.most {
		return ""
	}
	return fmt.Sprintf("the pools of all %d instances together may open %d connections, and the server takes %d: lower MaxConns, or raise max_connections",
		b.instances, b.fleet, b.most)
}

// budgetSQL counts the instances by the sessions of their monitors. Roles do not matter to it: pg_stat_activity shows the
// sessions of one's own role to everybody.
const budgetSQL = `-- name: dbsplit_budget
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
		- coalesce(current_setting('reserved_connections', true)::int, 0),
	(select count(*) from pg_stat_activity where application_name = $1 and datname = current_database())`

// sampleFleet compares, node by node, what the instances may open together with what the server takes.
func (db *DB) sampleFleet(ctx context.Context) {
	own := make(map[*node]int)
	db.eachPool(func(n *node, _ string, p *pool) { own[n] += int(p.Config().MaxConns) })
	var wg sync.WaitGroup
	for n, conns := range own {
		wg.Go(func() { db.sampleBudget(ctx, n, conns+1) }) // the monitor has one, too
	}
	wg.Wait()
}

// sampleBudget leaves out nodes behind a pooler: what we open ends there, and which of the server's sessions are whose does
// not show.
func (db *DB) sampleBudget(ctx context.Context, n *node, own int) {
	if n.pooled() {
		n.budget.Store(nil)
		db.in.fleet.DeleteLabelValues(db.opts.Name, n.name)
		db.in.capacity.DeleteLabelValues(db.opts.Name, n.name)
		return
	}
	db.measureBy(ctx, n, "fleet", func(ctx context.Context, c guarded) error {
		var b budget
		if err := c.QueryRow(ctx, budgetSQL, db.monitorName()).Scan(&b.most, &b.instances); err != nil {
			return err
		}
		b.instances = max(1, b.instances)
		b.fleet = b.instances * own
		db.show(db.in.fleet, n, float64(b.fleet))
		db.show(db.in.capacity, n, float64(b.most))
		if old := n.budget.Swap(&b); b.advice() != "" && old.advice() == "" {
			db.opts.Logger.Warn("dbsplit: too many connections are allowed", "db", db.opts.Name, "node", n.name, "advice", b.advice())
		}
		return nil
	})
}
