package dbsplit

import (
	"context"
	"net/http"

	"github.com/scaleaware/scaleaware/admin"
)

const (
	partitionsPath = operationsPath + "partitions/{table}"

	defaultMonthsAhead = 3
	maxMoveRows        = 100_000_000
)

// partitionOperations are those of the database operations that are about partitions.
func (db *DB) partitionOperations() []admin.Operation {
	return []admin.Operation{{
		Method: http.MethodGet, Path: partitionsPath, ID: "database.partitions",
		Summary: "The partitions of a table that is partitioned by time, with gaps and rows in the default one.",
		Params:  []admin.Param{tableParam}, Reply: PartitionReport{},
		Do: func(ctx context.Context, c *admin.Call) (any, error) { return db.Partitions(ctx, c.Path("table")) },
	}, {
		Method: http.MethodPost, Path: partitionsPath, ID: "database.ensure-partitions", Role: admin.Operator,
		Summary: "Make the missing partitions of this and the coming months, with the parent's indexes.",
		Params:  []admin.Param{tableParam, query("months", "integer", "How many months ahead; 3 when absent.")},
		Reply:   PartitionReport{}, Do: db.ensurePartitionsOperation,
	}, {
		Method: http.MethodPost, Path: partitionsPath + "/move-default", ID: "database.move-default", Role: admin.Operator,
		Summary: "Give the months that have rows in the default partition partitions of their own, and move the rows there, in the background.",
		Params: []admin.Param{
			tableParam,
			query("max_rows", "integer", "The most rows of one month, since writers wait while they are moved; 100000 when absent."),
			query("timeout", "duration", "The most that one statement may keep others waiting; 10s when absent."),
		},
		Reply: admin.Started{}, Do: db.moveDefaultOperation,
	}, {
		Method: http.MethodPost, Path: partitionsPath + "/retain", ID: "database.retain", Role: admin.Operator,
		Summary: "Detach the partitions that end before the months to keep; their rows stay in tables of their own unless drop is set.",
		Params: []admin.Param{
			tableParam,
			query("keep", "integer", "How many months before the present one to keep. Required."),
			query("drop", "boolean", "Also drop the detached tables, with their rows. Needs confirm."),
			query("confirm", "boolean", "Required to be true with drop=true."),
		},
		Reply: DetachReport{}, Do: db.retainOperation,
	}}
}

func (db *DB) ensurePartitionsOperation(ctx context.Context, c *admin.Call) (any, error) {
	months, err := intQuery(c, "months", defaultMonthsAhead, 0, maxMonthsAhead)
	if err != nil {
		return nil, err
	}
	return db.EnsurePartitions(ctx, c.Path("table"), months, c.DryRun)
}

func (db *DB) moveDefaultOperation(ctx context.Context, c *admin.Call) (any, error) {
	var opts MoveOptions
	var err error
	if opts.MaxRows, err = intQuery(c, "max_rows", defaultMoveRows, 1, maxMoveRows); err != nil {
		return nil, err
	}
	if opts.Timeout, err = durationQuery(c, "timeout", heldTimeout); err != nil {
		return nil, err
	}
	if opts.Timeout <= 0 {
		return nil, admin.Invalid("timeout", "%v is too short: give 1ms or more", opts.Timeout)
	}
	dry := opts
	dry.DryRun = true
	plan, err := db.MoveDefaultRows(ctx, c.Path("table"), dry)
	if err != nil || c.DryRun {
		return plan, err
	}
	return c.Background.Start("database.move-default", plan.Table, c.Actor, func(ctx context.Context, progress admin.Progress) (any, error) {
		progress(plan)
		return db.moveDefaultRows(ctx, plan.Table, opts, func(r *MoveReport) { progress(r.clone()) })
	})
}

func (db *DB) retainOperation(ctx context.Context, c *admin.Call) (any, error) {
	keep, err := intQuery(c, "keep", 0, 1, maxKeepMonths)
	if err != nil {
		return nil, err
	}
	opts := DetachOptions{KeepMonths: keep, Drop: boolQuery(c, "drop"), DryRun: c.DryRun}
	if opts.Drop && !opts.DryRun && !boolQuery(c, "confirm") {
		return nil, admin.Invalid("confirm", "drop=true deletes the rows of the old partitions for good: add confirm=true, or leave drop out, and the detached tables stay")
	}
	return db.DetachPartitions(ctx, c.Path("table"), opts)
}
