package dbsplit

import (
	"context"
	"time"
)

// Provenance says where one read was sent, and why.
type Provenance struct {
	// Node is the node's host and port.
	Node string
	// Role is replica or primary.
	Role string
	// Reason says why the node was chosen, as the label of db_reads_total does.
	Reason string
	// Staleness is the upper bound of the answer's age as known when the read was sent; 0 on the primary. Bounded is false
	// when none is known.
	Staleness time.Duration
	Bounded   bool
	// Token is set when the read had to see something in particular, and the node has it: the caller's writes, or with
	// RequireFresh everything committed before.
	Token bool
	// Stale is set when the answer may be older than the bound that applies by default.
	Stale bool
	// Retry is set when another node has failed this read before.
	Retry bool
}

// ReadTracer is found on Options.Tracer, as the interfaces of pgx are. TraceRead is called before each read is sent, in the
// caller's goroutine, so it must be fast. Hedge says when it is called with that; what
// Shadow sends, it is told of in a goroutine of its own, with the reason shadow.
type ReadTracer interface {
	TraceRead(ctx context.Context, p Provenance)
}

// report tells those who want to know about a read. Should they panic, the connection goes back: their callers may recover.
func (r *Reader) report(ctx context.Context, d *decision, conn guarded) {
	tracer, _ := r.db.opts.Tracer.(ReadTracer)
	if tracer == nil && r.s.report == nil {
		return
	}
	p := d.provenance(r.db.opts.MaxStaleness)
	if r.s.told != nil {
		*r.s.told = p
		return
	}
	told := false
	defer func() {
		if !told {
			conn.Release()
			d.node.load.end()
		}
	}()
	r.tell(ctx, p)
	told = true
}

func (r *Reader) tell(ctx context.Context, p Provenance) {
	if tracer, ok := r.db.opts.Tracer.(ReadTracer); ok {
		tracer.TraceRead(ctx, p)
	}
	if r.s.report != nil {
		r.s.report(p)
	}
}

func (d *decision) provenance(maxStaleness time.Duration) Provenance {
	p := Provenance{Node: d.node.name, Role: rolePrimary.String(), Reason: d.because.String(), Bounded: true, Token: d.token, Retry: d.retry}
	if d.onReplica {
		p.Role = roleReplica.String()
		p.Staleness, p.Bounded = d.staleness, d.bounded
		p.Stale = !d.bounded || d.staleness > maxStaleness
	}
	return p
}
