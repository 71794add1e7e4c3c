package doccode_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/redisclient"
	"github.com/scaleaware/scaleaware/session"
)

// Lead stands for a service's own type.
type Lead struct {
	ID   string
	Name string
}

func newestLeads(context.Context, *dbsplit.Reader, int) ([]string, error) { return nil, nil }

func leadByID(context.Context, *dbsplit.Reader, string) (Lead, error)               { return Lead{}, nil }
func leadsByID(context.Context, *dbsplit.Reader, []string) (map[string]Lead, error) { return nil, nil }

func deployWorkers(context.Context, int) error { return nil }

func Example_runbookSessions() {
	_ = func(rdb redis.UniversalClient, secrets []string, mux http.Handler) (http.Handler, error) {
		sessions, err := session.New(rdb, &session.Options{
			Secrets: secrets, // newest first, so that they can be rotated
		})
		if err != nil {
			return nil, err
		}
		return sessions.Middleware(mux), nil
	}
}

func Example_runbookDatabase() {
	_ = func(ctx context.Context) (*dbsplit.DB, error) {
		db, err := dbsplit.Open(ctx, dbsplit.Nodes{
			Primary:  os.Getenv("DATABASE_URL_PRIMARY"),
			Replicas: strings.Split(os.Getenv("DATABASE_URL_REPLICA"), ","),
		}, nil)
		return db, err
	}
	_ = func(ctx context.Context, db *dbsplit.DB, id, name string) error {
		err := db.InTx(ctx, func(tx pgx.Tx) error { // on the primary
			_, err := tx.Exec(ctx, `INSERT INTO "Lead" (id, name) VALUES ($1, $2)`, id, name)
			return err
		})
		if err != nil {
			return err
		}
		rows, err := db.Read().Query(ctx, `SELECT id, name FROM "Lead"`) // on a replica that has it
		if err == nil {
			rows.Close()
		}
		return err
	}
}

func Example_runbookCache() {
	_ = func() (*cache.Store, error) {
		rdb := redisclient.New(redisclient.Options("redis-1:7000", "redis-2:7000", "redis-3:7000"))
		store, err := cache.New(rdb, &cache.Options{Prefix: "app:"})
		return store, err
	}
	_ = func(db *dbsplit.DB, leads *cache.View[Lead]) error {
		err := leads.DeclareWarm(cache.WarmSet[Lead]{
			Name: "newest-leads",
			Keys: func(ctx context.Context) ([]string, error) { return newestLeads(ctx, db.Read(), 200) },
			LoadMany: func(ctx context.Context, ids []string) (map[string]Lead, error) {
				return leadsByID(ctx, db.Read(), ids)
			},
		})
		return err
	}
}

func Example_runbookQueues() {
	_ = func(jobs *queue.Jobs) error {
		rule := queue.ScaleRule{Queue: "lead-processing", Above: 1000, Up: 5, Below: 100, Down: 2}
		err := jobs.Autoscale(rule, func(ctx context.Context, d queue.Decision) error {
			return deployWorkers(ctx, d.Workers)
		}, nil)
		return err
	}
	_ = func(rdb redis.UniversalClient) (*queue.Jobs, error) {
		jobs, err := queue.New(rdb, []queue.Queue{
			{Name: "critical", Weight: 6, Rate: queue.Rate{Max: 1000, Per: time.Second}},
			{Name: "normal", Weight: 2, Rate: queue.Rate{Max: 100, Per: time.Second}},
			{Name: "low-priority", Weight: 1, Rate: queue.Rate{Max: 10, Per: time.Second}},
		}, nil)
		return jobs, err
	}
}
