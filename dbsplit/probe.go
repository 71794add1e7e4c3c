package dbsplit

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
)

// probeSQL asks one server everything that routing needs. No privilege is needed for it, except that the timeline of a
// replica comes sooner with pg_monitor. pg_control_checkpoint() would still name the old timeline after a promotion.
const probeSQL = `-- name: dbsplit_probe
select r.recovering,
	((case when r.recovering then coalesce(pg_last_wal_replay_lsn(), '0/0') else pg_current_wal_insert_lsn() end) - '0/0'::pg_lsn)::bigint,
	case when r.recovering
		then coalesce((select received_tli from pg_stat_wal_receiver), (select min_recovery_end_timeline from pg_control_recovery()))
		else ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
	end,
	(select system_identifier from pg_control_system()),
	i.wal_block_size, i.bytes_per_wal_segment,
	current_setting('transaction_read_only') = 'on'
from (select pg_is_in_recovery() as recovering) r, pg_control_init() i`

// position is what one probe says of a server.
type position struct {
	recovering bool
	// at is the end of the log on a primary, and what has been replayed on a replica.
	at scaleaware.Token
	// refuses says that a session which asks for nothing is read-only, on a primary too.
	refuses bool
}

type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func probe(ctx context.Context, q rowQuerier, args ...any) (position, error) {
	var (
		p                   position
		lsn, system         int64
		timeline            int32
		blockSize, segBytes int64
	)
	err := q.QueryRow(ctx, probeSQL, args...).Scan(&p.recovering, &lsn, &timeline, &system, &blockSize, &segBytes, &p.refuses)
	if err != nil {
		return position{}, fmt.Errorf("dbsplit: probe: %w", err)
	}
	p.at = scaleaware.Token{System: uint64(system), Timeline: uint32(timeline), LSN: scaleaware.LSN(lsn)}
	if !p.recovering {
		p.at.LSN = p.at.LSN.PageStart(uint64(blockSize), uint64(segBytes))
	}
	return p, nil
}
