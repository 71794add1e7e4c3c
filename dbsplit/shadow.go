package dbsplit

import (
	"context"
	"encoding/binary"
	"errors"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware"
)

// Shadow compares: share of the reads, from 0 to 1, are sent once more, when the caller has its answer, to the node of that host
// and port, and report is called with what differs, and with what failed there. Nil only counts, in db_shadow_reads_total. The
// caller notices nothing of it, and its answer does not come from there more often. It is for QueryRow and Query; what else a
// Reader does is not compared.
//
// Rows are compared as the server sent them, in their order and as far as the caller read them: for QueryRow that is the first
// one. Of Query those reads are compared whose rows were read to the end. A statement that orders nothing, or tells the
// time, differs by itself. So does what is written meanwhile: the node is asked once it has replayed all that the answer can have
// shown, and may have replayed more.
//
// A read is skipped when the node is the one that answered, is not found to have got that far within a second, or not proven to;
// when four others are being compared; and when an argument is not plain, as with Hedge. It is given up after ten
// seconds, and when the DB is closed.
//
// report runs in a goroutine of its own, which Close waits for. Its context has the values of the caller's, but another
// Watermark.
func Shadow(node string, share float64, report func(context.Context, ShadowResult)) ReadOption {
	return func(s *readSettings) { s.special, s.shadow = true, &shadowing{node, share, report} }
}

// ShadowResult is a read whose two answers differ, or whose second one failed.
type ShadowResult struct {
	SQL    string       // as the caller gave it
	Answer ShadowAnswer // the caller's
	Shadow ShadowAnswer // the compared node's; empty, but for what came before the failure, when Err is set
	// Err is why there is no second answer. Nil means that they differ.
	Err error
}

// ShadowAnswer is one of two answers that are compared.
type ShadowAnswer struct {
	Provenance Provenance // which node answered, and why that
	Rows       int        // as far as they were compared
	// Hash is FNV-1a, of 64 bits, over the values of all rows as they were sent.
	Hash uint64
	// Took is the time until the first row was there, with the wait for a connection, or until it was known that there is none.
	Took time.Duration
}

const (
	maxShadows    = 4 // at once
	shadowWait    = time.Second
	shadowTimeout = 10 * time.Second
)

type shadowing struct {
	node   string
	share  float64
	report func(context.Context, ShadowResult)
}

// shadowOutcome is a label of db_shadow_reads_total.
type shadowOutcome uint8

const (
	shadowSame shadowOutcome = iota
	shadowDifferent
	shadowError
	shadowSkipped
	shadowOutcomes
)

func (o shadowOutcome) String() string {
	return [...]string{"same", "different", "error", "skipped"}[o]
}

// shadow is one read that is to be compared.
type shadow struct {
	*shadowing
	db     *DB
	ctx    context.Context //nolint:containedctx // of the caller
	args   []any
	one    bool // QueryRow
	result ShadowResult
	answer digest
}

// drawn returns a shadow for a share of the reads, and nil for the others.
func (r *Reader) drawn(ctx context.Context, sql string, args []any, one bool) *shadow {
	if r.s.shadow == nil || rand.Float64() >= r.s.shadow.share {
		return nil
	}
	own, ok := copied(args)
	if !ok {
		r.db.in.shadowed[shadowSkipped].Inc()
		return nil
	}
	return &shadow{shadowing: r.s.shadow, db: r.db, ctx: ctx, args: own, one: one, result: ShadowResult{SQL: sql}, answer: newDigest(r.db)}
}

// shadowRows are the rows of the caller.
type shadowRows struct {
	pgx.Rows
	s    *shadow
	done bool
}

func (r *shadowRows) Next() bool {
	if r.Rows.Next() {
		r.s.answer.add(r.Rows)
		return true
	}
	r.end(r.Rows.Err() == nil)
	return false
}

func (r *shadowRows) Close() {
	r.Rows.Close()
	r.end(r.s.one && r.s.answer.rows == 1 && r.Rows.Err() == nil)
}

// end begins the comparison when the caller has read what it wanted to.
func (r *shadowRows) end(whole bool) {
	if r.done {
		return
	}
	r.done = true
	s := r.s
	s.result.Answer = s.answer.told(s.result.Answer.Provenance)
	if whole && s.db.shadows.Add(1) <= maxShadows {
		if s.db.background.run(s.compare) {
			return
		}
	}
	if whole {
		s.db.shadows.Add(-1)
	}
	s.db.in.shadowed[shadowSkipped].Inc()
}

// compare asks the node. closing ends with the DB.
func (s *shadow) compare(closing context.Context) {
	defer s.db.shadows.Add(-1)
	defer s.db.recovered("shadow") // of report, or of a hook
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), shadowTimeout)
	defer cancel()
	defer context.AfterFunc(closing, cancel)()
	ctx, w := scaleaware.WithWatermark(ctx)
	outcome := s.ask(ctx, w)
	if closing.Err() != nil && outcome == shadowError {
		outcome = shadowSkipped
	}
	s.db.in.shadowed[outcome].Inc()
	if s.report != nil && (outcome == shadowDifferent || outcome == shadowError) {
		s.report(ctx, s.result)
	}
}

func (s *shadow) ask(ctx context.Context, w *scaleaware.Watermark) shadowOutcome {
	from := s.result.Answer.Provenance.Node
	if from == s.node {
		return shadowSkipped
	}
	at, err := s.db.positionOf(ctx, from)
	if err != nil {
		return shadowSkipped
	}
	w.Raise(at) // the node must have replayed that, as if the caller had written it
	settings := s.db.defaultRead()
	settings.only, settings.wait, settings.fallback, settings.because = s.node, shadowWait, FallbackNone, becauseShadow
	settings.report = func(p Provenance) { s.result.Shadow.Provenance = p }
	r := Reader{db: s.db, s: settings}
	var a attempt
	l, err := r.lease(ctx, &a)
	switch {
	case err != nil && a.failed == nil && errors.Is(err, ErrNoNode):
		return shadowSkipped
	case err != nil:
		s.result.Err = err
		return shadowError
	}
	answer := newDigest(s.db)
	err = l.use(func() error { return answer.read(ctx, &l, s) })
	s.result.Shadow = answer.told(s.result.Shadow.Provenance)
	switch {
	case err != nil:
		s.result.Err = l.explain(err)
		return shadowError
	case answer.rows > 0 && s.answer.rows > 0 && !slices.Equal(answer.formats, s.answer.formats):
		s.result.Err = errors.New("dbsplit: the nodes send their values in different formats: give their connection strings the same default_query_exec_mode")
		return shadowError
	case answer.rows != s.answer.rows || answer.hash.Sum64() != s.answer.hash.Sum64():
		return shadowDifferent
	default:
		return shadowSame
	}
}

// positionOf is what a read that a node has answered can have shown, at most.
func (db *DB) positionOf(ctx context.Context, name string) (scaleaware.Token, error) {
	n := db.lookUp(name)
	if n == nil || n == db.writer.Load() {
		return db.Position(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, db.opts.ProbeTimeout)
	defer cancel()
	return db.sample(ctx, n, time.Now())
}

// digest is what is kept of an answer.
type digest struct {
	db      *DB
	begun   time.Duration
	took    time.Duration
	rows    int
	hash    hash.Hash64
	formats []int16
}

func newDigest(db *DB) digest { return digest{db: db, begun: db.now(), hash: fnv.New64a()} }

func (d *digest) add(rows pgx.Rows) {
	if d.rows == 0 {
		d.took = d.db.now() - d.begun
		for _, f := range rows.FieldDescriptions() {
			d.formats = append(d.formats, f.Format)
		}
	}
	d.rows++
	var size [8]byte
	for _, value := range rows.RawValues() {
		n := uint64(len(value))
		if value == nil {
			n = 1<<64 - 1
		}
		binary.BigEndian.PutUint64(size[:], n)
		d.hash.Write(size[:])
		d.hash.Write(value)
	}
}

// read takes in what the shadow answers, as far as the caller has read.
func (d *digest) read(ctx context.Context, l *lease, s *shadow) error {
	rows, err := l.conn.Query(ctx, s.result.SQL, s.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		d.add(rows)
		if s.one {
			break
		}
	}
	rows.Close()
	return rows.Err()
}

func (d *digest) told(p Provenance) ShadowAnswer {
	if d.rows == 0 {
		d.took = d.db.now() - d.begun
	}
	return ShadowAnswer{Provenance: p, Rows: d.rows, Hash: d.hash.Sum64(), Took: d.took}
}
